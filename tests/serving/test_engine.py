"""The engine: a warm start computes only what is new and writes what a cold start writes."""

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import DynamicCache, Mamba2Config, Starcoder2Config, Starcoder2ForCausalLM

from infill.errors import InputError
from serving.predictor.cache import CachedPrompt, PrefixCache, common_prefix
from serving.predictor.prompt_lookup import PromptLookup
from serving.predictor.transformers_engine import TransformersEngine
from serving.protocol import Sampling
from tests.builders import tiny_tokenizer
from tests.properties import examples

GREEDY = Sampling(temperature=0)
NEW = 12


def tokens(count: int, seed: int) -> list[int]:
    generator = random.Random(seed)
    return [generator.randrange(32, 512) for _ in range(count)]


def generate(engine: TransformersEngine, prompt: list[int], sampling: Sampling = GREEDY) -> tuple[list[int], int]:
    """`NEW` tokens after `prompt`, and how many of the prompt's tokens came from the cache."""
    written: list[int] = []
    with engine.session(prompt) as session:
        for token in engine.generate(session, sampling, lambda: None):
            written.append(token)
            if len(written) == NEW:
                break
    return written, session.cached_tokens


@pytest.fixture
def counted(engine: TransformersEngine) -> Iterator[list[int]]:
    """Lengths of the forward passes from here on, starting with an empty cache."""
    lengths: list[int] = []

    def hook(module: Any, arguments: Any, keywords: dict[str, Any]) -> None:
        lengths.append(keywords["input_ids"].shape[1])

    engine.cache.clear()
    handle = engine.model.register_forward_pre_hook(hook, with_kwargs=True)
    yield lengths
    handle.remove()


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(temperature=0.9, top_p=0.9, seed=3)], ids=["greedy", "sampled"])
def test_a_warm_start_prefills_only_new_tokens_and_writes_the_same(
    engine: TransformersEngine, counted: list[int], sampling: Sampling
) -> None:
    prompt = tokens(600, 1)
    longer = prompt + tokens(7, 2)
    generate(engine, prompt, sampling)
    counted.clear()
    warm, cached = generate(engine, longer, sampling)
    assert cached == 600
    assert counted == [7] + [1] * (NEW - 1)
    engine.cache.clear()
    counted.clear()
    cold, cached = generate(engine, longer, sampling)
    assert cached == 0
    assert counted == [512, 95] + [1] * (NEW - 1)
    assert warm == cold


def drafting(engine: TransformersEngine, drafts: int, prompt: list[int], sampling: Sampling) -> list[int]:
    """What the engine writes with drafts of this length."""
    engine.draft_tokens = drafts
    try:
        return generate(engine, prompt, sampling)[0]
    finally:
        engine.draft_tokens = 0


@examples(40)
@given(
    part=st.lists(st.integers(32, 511), min_size=1, max_size=6),
    times=st.integers(1, 6),
    drafts=st.integers(1, 9),
    sampling=st.sampled_from([GREEDY, Sampling(temperature=0.9, seed=3), replace(GREEDY, begins_with="re")]),
)
def test_drafts_from_the_prompt_change_no_answer_and_no_later_one(
    engine: TransformersEngine, part: list[int], times: int, drafts: int, sampling: Sampling
) -> None:
    prompt, sampling = part * times, replace(sampling, max_tokens=NEW)
    engine.cache.clear()
    plain, _ = generate(engine, prompt, sampling)
    following, _ = generate(engine, [*prompt, *plain[:5], 77], sampling)
    engine.cache.clear()
    assert drafting(engine, drafts, prompt, sampling) == plain
    assert generate(engine, [*prompt, *plain[:5], 77], sampling)[0] == following, "from the cache"


def test_drafts_save_forward_passes(engine: TransformersEngine, counted: list[int]) -> None:
    prompt = tokens(3, 5) * 20
    answer = drafting(engine, 4, prompt, replace(GREEDY, max_tokens=NEW))
    engine.cache.clear()
    assert answer == generate(engine, prompt)[0]
    counted.clear()
    drafting(engine, 4, [*prompt, *answer, *answer], replace(GREEDY, max_tokens=NEW))
    assert max(counted[1:]) > 1
    assert len(counted) < NEW


def test_a_draft_is_what_followed_the_last_tokens_before() -> None:
    lookup = PromptLookup([1, 2, 3, 4, 5, 1, 2, 3])
    assert (lookup.draft(2), lookup.draft(9), lookup.draft(0)) == ([4, 5], [4, 5, 1, 2, 3], [])
    lookup.add(6)
    assert lookup.draft(3) == []
    for token in (1, 2, 3):
        lookup.add(token)
    assert lookup.draft(1) == [6], "the last time"
    assert PromptLookup([7, 7]).draft(3) == []


def test_the_same_prompt_again_computes_one_token_of_it(engine: TransformersEngine, counted: list[int]) -> None:
    prompt = tokens(100, 3)
    first, _ = generate(engine, prompt)
    again, cached = generate(engine, prompt)
    assert (again, cached) == (first, 99)


def test_a_generation_that_was_broken_off_leaves_a_cache_that_is_right(
    engine: TransformersEngine, counted: list[int]
) -> None:
    prompt = tokens(700, 4)
    calls = iter(range(10))

    def broken() -> None:
        if next(calls) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), engine.session(prompt) as session:
        next(engine.generate(session, GREEDY, broken))
    warm, cached = generate(engine, prompt)
    assert cached == 512
    engine.cache.clear()
    assert generate(engine, prompt)[0] == warm


def test_two_sessions_with_a_common_start_do_not_disturb_each_other(
    engine: TransformersEngine, counted: list[int]
) -> None:
    start = tokens(60, 5)
    left, right = start + tokens(80, 6), start + tokens(80, 7)
    first, _ = generate(engine, left)
    _, cached = generate(engine, right)
    assert cached == 60
    again, cached = generate(engine, left)
    assert (again, cached) == (first, len(left) - 1)
    assert len(engine.cache) == 2


def test_a_sliding_window_model_is_served_right(tmp_path: Path) -> None:
    tiny_tokenizer(tmp_path)
    config = Starcoder2Config(
        vocab_size=512,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        sliding_window=16,
        bos_token_id=0,
        eos_token_id=0,
    )
    torch.manual_seed(0)
    Starcoder2ForCausalLM(config).save_pretrained(tmp_path)
    engine = TransformersEngine(tmp_path, threads=1)
    prompt = tokens(60, 8)
    generate(engine, prompt)
    warm, cached = generate(engine, [*prompt, 77, 78])
    assert cached == 60
    inputs = torch.tensor([[*prompt, 77, 78]])
    expected = engine.model.generate(
        inputs, attention_mask=torch.ones_like(inputs), max_new_tokens=NEW, do_sample=False, eos_token_id=None
    )
    assert warm == expected[0, 62:].tolist()


def test_the_prefix_cache_forgets_the_least_recently_used() -> None:
    def entry(first: int) -> CachedPrompt:
        keys = torch.zeros(1, 1, 10, 4)
        ids = np.arange(first, first + 10)
        return CachedPrompt(ids=ids, prompt_tokens=10, cache=DynamicCache([(keys, keys.clone())]))

    size = entry(0).nbytes
    cache = PrefixCache(2 * size)
    for first in (0, 100, 200):
        cache.put(entry(first))
    assert (len(cache), cache.nbytes) == (2, 2 * size)
    assert cache.take(np.arange(0, 20))[1] == 0
    assert cache.take(np.array([100, 101, 7]))[1] == 2
    cache.put(entry(300))
    assert cache.take(np.arange(100, 120))[1] == 10
    assert len(cache) == 1  # the entry went over to whoever took it whole
    cache.put(CachedPrompt(ids=np.arange(40), prompt_tokens=40, cache=DynamicCache([(torch.zeros(1, 1, 99, 4),) * 2])))
    assert len(cache) == 1


@given(left=st.lists(st.integers(0, 2)), right=st.lists(st.integers(0, 2)))
def test_common_prefix(left: list[int], right: list[int]) -> None:
    size = common_prefix(np.array(left, dtype=np.int64), np.array(right, dtype=np.int64))
    assert left[:size] == right[:size]
    assert size in (len(left), len(right)) or left[size] != right[size]


def test_folders_that_hold_no_usable_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no config\.json"):
        TransformersEngine(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="cannot be read"):
        TransformersEngine(tmp_path)
    Mamba2Config().save_pretrained(tmp_path)
    with pytest.raises(InputError, match="vLLM"):
        TransformersEngine(tmp_path)


@pytest.mark.parametrize("seed", range(4))
def test_a_word_that_is_typed_is_continued_like_one_that_is_not(engine: TransformersEngine, seed: int) -> None:
    prompt = tokens(60, seed)
    free, _ = generate(engine, prompt)
    text = b"".join(engine.tokens.table[token] for token in free)
    for typed in range(1, min(12, len(text))):
        begun = text[:typed].decode(errors="ignore")
        assert generate(engine, prompt, replace(GREEDY, begins_with=begun))[0] == free


@given(st.text(min_size=1, max_size=12), st.integers(0, 9))
def test_an_answer_begins_with_the_text_that_it_must(engine: TransformersEngine, text: str, seed: int) -> None:
    sampling = Sampling(temperature=1.0, seed=seed, begins_with=text, max_tokens=40)
    pieces = engine.complete([40, 41], sampling, lambda: None)
    answer = "".join(piece.text for piece in pieces)
    assert answer.startswith(text) or text.startswith(answer.rstrip("\ufffd"))
