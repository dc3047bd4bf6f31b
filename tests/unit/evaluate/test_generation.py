import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from infill.errors import InputError
from infill.evaluate import generation
from infill.evaluate.generation import Generator
from tests import builders


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Generator:
    folder = tmp_path_factory.mktemp("model")
    builders.tiny_model(folder)
    return Generator(folder)


def _prompts(count: int, seed: int = 0) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(32, 512, size=rng.integers(1, 60)).tolist() for _ in range(count)]


def _greedy_without_cache(generator: Generator, prompt: list[int], n: int) -> list[int]:
    ids = list(prompt)
    with torch.inference_mode(), generation._threads(1):
        for _ in range(n):
            token = int(generator.model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
            if token in generator.stop_ids:
                break
            ids.append(token)
    return ids[len(prompt) :]


@pytest.mark.parametrize("read_tokens", [1, 128, 1_024])
def test_batched_greedy_is_the_greedy_of_each_prompt_alone(
    generator: Generator, read_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generator, "read_tokens", read_tokens)
    prompts = [*_prompts(9), *_prompts(2)]  # two of them twice
    together = generator.generate(prompts, max_new_tokens=12)
    assert [result.ids for result in together] == [_greedy_without_cache(generator, p, 12) for p in prompts]


def test_a_reference_costs_what_the_model_gives_it_after_its_prompt_and_changes_no_completion(
    generator: Generator,
) -> None:
    prompts, references = _prompts(9), [reference[: 3 * place] for place, reference in enumerate(_prompts(9, seed=1))]
    together = generator.generate(prompts, max_new_tokens=12, references=references)
    assert [result.ids for result in together] == [r.ids for r in generator.generate(prompts, max_new_tokens=12)]
    assert together[0].reference_bits is None  # an empty reference is none
    for prompt, reference, result in list(zip(prompts, references, together, strict=True))[1:]:
        with torch.inference_mode():
            logits = generator.model(input_ids=torch.tensor([prompt + reference])).logits[0, len(prompt) - 1 : -1]
        chosen = torch.log_softmax(logits, -1).gather(1, torch.tensor(reference)[:, None])
        assert result.reference_bits == pytest.approx(-float(chosen.sum()) / np.log(2), rel=1e-4)


def test_a_completion_begins_with_its_text_and_continues_like_one_that_begins_so_by_itself(
    generator: Generator,
) -> None:
    prompts = _prompts(6)
    free = generator.generate(prompts, max_new_tokens=12)
    texts = [generator.encoder.decode(result.ids)[:place].removesuffix("\ufffd") for place, result in enumerate(free)]
    assert any(texts)
    assert generator.generate(prompts, max_new_tokens=12, beginnings=texts) == free
    forced = generator.generate(prompts, max_new_tokens=12, beginnings=["retu", "", "x_1", "é", " if", "_"])
    assert forced[1] == free[1]
    assert [generator.encoder.decode(result.ids)[:2] for result in forced[2:]] != [text[:2] for text in texts[2:]]
    for result, text in zip(forced, ["retu", "", "x_1", "é", " if", "_"], strict=True):
        assert generator.encoder.decode(result.ids).startswith(text)


def test_results_come_in_the_callers_order_and_equal_prompts_agree(generator: Generator) -> None:
    prompts = _prompts(5)
    twice = generator.generate([*prompts, *prompts[::-1]], max_new_tokens=6)
    assert twice[:5] == twice[5:][::-1]


def test_sampling_is_reproducible_and_its_noise_does_not_depend_on_the_neighbours(generator: Generator) -> None:
    prompts = _prompts(6)
    first = generator.generate(prompts, max_new_tokens=10, temperature=0.8, seed=3)
    assert generator.generate(prompts, max_new_tokens=10, temperature=0.8, seed=3) == first
    assert generator.generate(prompts[2:4], max_new_tokens=10, temperature=0.8, seed=3) == first[2:4]
    assert generator.generate(prompts, max_new_tokens=10, temperature=0.8, seed=4) != first


def test_equal_prompts_give_different_samples_at_several_temperatures(generator: Generator) -> None:
    prompt = _prompts(1)[0]
    results = generator.generate([prompt] * 4, max_new_tokens=16, temperature=[0.0, 1.0, 1.0, 2.0])
    assert len({tuple(result.ids) for result in results}) == 4
    assert results[0] == generator.generate([prompt], max_new_tokens=16)[0]


def test_a_stop_token_ends_a_sequence_and_is_not_part_of_it(
    generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = _prompts(8)
    free = generator.generate(prompts, max_new_tokens=20, temperature=1.0)
    stop = free[0].ids[4]
    # Random weights hardly ever choose the reserved tokens, so an ordinary one stops too.
    monkeypatch.setattr(generator, "stop_ids", generator.stop_ids | {stop})
    stopped = generator.generate(prompts, max_new_tokens=20, temperature=1.0)
    assert stopped[0].finished
    for before, after in zip(free, stopped, strict=True):
        assert after.finished == (before.finished or stop in before.ids)
        assert after.ids == (before.ids[: before.ids.index(stop)] if stop in before.ids else before.ids)


def test_small_batches_give_the_same_as_one(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = _prompts(7)
    whole = generator.generate(prompts, max_new_tokens=8, temperature=0.5)
    monkeypatch.setattr(generator, "batch_tokens", 100)
    assert generator.generate(prompts, max_new_tokens=8, temperature=0.5) == whole


def test_a_prompt_that_does_not_fit_is_refused(generator: Generator) -> None:
    with pytest.raises(InputError, match=r"250 tokens and 10 new tokens .* context of 256"):
        generator.generate([[40] * 250], max_new_tokens=10)
    with pytest.raises(InputError, match="empty"):
        generator.generate([[40], []], max_new_tokens=1)
    assert generator.generate([], max_new_tokens=1) == []


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    builders.tiny_tokenizer(tmp_path)
    with pytest.raises(InputError, match="is not a model folder"):
        Generator(tmp_path)


def test_a_damaged_model_is_refused(tmp_path: Path) -> None:
    builders.tiny_model(tmp_path)
    weights = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(InputError, match="cannot be loaded"):
        Generator(tmp_path)


def test_a_tokenizer_that_is_larger_than_the_model_is_refused(tmp_path: Path) -> None:
    builders.tiny_model(tmp_path / "model", vocab_size=400)
    builders.tiny_tokenizer(tmp_path / "tokenizer", vocab_size=450)
    shutil.copy(tmp_path / "tokenizer" / "tokenizer.json", tmp_path / "model" / "tokenizer.json")
    with pytest.raises(InputError, match="450 tokens, but the model only 400"):
        Generator(tmp_path / "model")


def test_the_number_of_threads_is_restored(generator: Generator) -> None:
    before = torch.get_num_threads()
    generator.generate(_prompts(1), max_new_tokens=1)
    assert torch.get_num_threads() == before
