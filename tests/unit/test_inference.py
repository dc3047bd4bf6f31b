import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from infill import inference, machine
from infill.errors import InputError
from tests.properties import examples

UNIFORM = st.floats(0, 1, exclude_max=True)


@examples(50)
@given(logits=st.lists(st.floats(-5, 5), min_size=2, max_size=8), top_p=st.floats(0.05, 0.99), uniform=UNIFORM)
def test_a_sampled_token_is_in_the_nucleus(logits: list[float], top_p: float, uniform: float) -> None:
    values = torch.tensor(logits)
    [chosen] = inference.choose(values[None], [1.0], [uniform], top_p)
    probabilities = torch.softmax(values, dim=-1)
    more_probable = probabilities[probabilities > probabilities[chosen]].sum()
    assert more_probable < top_p + 1e-6


def test_tokens_are_drawn_as_often_as_they_are_probable() -> None:
    logits, draws = torch.tensor([0.5, 2.0, -1.0, 0.0]), 1_000
    rows = logits.repeat(draws, 1)
    chosen = inference.choose(rows, [0.7] * draws, [(draw + 0.5) / draws for draw in range(draws)])
    shares = torch.bincount(torch.tensor(chosen), minlength=4) / draws
    torch.testing.assert_close(shares, torch.softmax(logits / 0.7, dim=-1), atol=2e-3, rtol=0)


@given(
    logits=st.lists(
        st.floats(width=32, allow_subnormal=False) | st.sampled_from([math.nan, math.inf, -math.inf]),
        min_size=1,
        max_size=6,
    ),
    temperature=st.floats(0, 2) | st.sampled_from([5e-324, 1e-40]),
    top_p=st.floats(0, 1) | st.sampled_from([5e-324, 1e-300]),
    uniform=UNIFORM,
)
def test_a_token_is_chosen_from_any_logits(
    logits: list[float], temperature: float, top_p: float, uniform: float
) -> None:
    [token] = inference.choose(torch.tensor([logits]), [temperature], [uniform], top_p)
    assert 0 <= token < len(logits)
    largest = torch.finfo(torch.float32).max
    usable = {place: min(logit, largest) for place, logit in enumerate(logits) if logit > -math.inf}  # nor is NaN
    assert not usable or token in usable
    if usable and (temperature < 1e-30 or top_p < 1e-30):
        assert usable[token] == max(usable.values())


def test_a_row_is_chosen_as_it_would_be_alone() -> None:
    rows = torch.randn(6, 32, generator=torch.Generator().manual_seed(0))
    temperatures, uniform = [0.0, 0.5, 1.0, 0.0, 2.0, 1.0], [0.0, 0.1, 0.9, 0.5, 0.3, 0.999]
    together = inference.choose(rows, temperatures, uniform, 0.9)
    alone = [
        inference.choose(row[None], [heat], [drawn], 0.9)[0]
        for row, heat, drawn in zip(rows, temperatures, uniform, strict=True)
    ]
    assert together == alone


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_missing_gpu_is_said() -> None:
    with pytest.raises(InputError, match="--device cpu"):
        inference.choose_device("cuda")


@pytest.mark.parametrize(("parameters", "threads"), [(1_600_000, 1), (135_000_000, min(machine.cores(), 8))])
def test_a_small_model_runs_on_one_thread(parameters: int, threads: int) -> None:
    assert machine.useful_threads(parameters) == threads
