import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infill.errors import InputError
from infill.prompt import (
    FAMILIES,
    RESERVED_TOKENS,
    ContextItem,
    Encoder,
    FimRequest,
    PromptFormat,
    detect_format,
    infill_format,
    load_encoder,
    load_format,
    render,
)
from tests import golden

FMT = infill_format()
CONTROL = set(range(len(RESERVED_TOKENS)))

texts = st.text(max_size=200) | st.sampled_from(RESERVED_TOKENS).map(lambda token: f"x{token}y")
items = st.builds(ContextItem, path=texts, text=texts)
requests = st.builds(FimRequest, path=texts, prefix=texts, suffix=texts, context=st.lists(items, max_size=4).map(tuple))


@pytest.mark.parametrize("case", list(golden.cases()), ids=lambda case: f"{case['format']}-{case['budget']}")
def test_golden_prompts(case: dict[str, Any]) -> None:
    request = golden.request_of(case["request"])
    prompt = render(golden.FORMATS[case["format"]], golden.ENCODER.encode, request, budget=case["budget"])
    assert prompt.ids == case["ids"]


@given(texts)
def test_text_is_never_parsed_for_control_tokens(text: str) -> None:
    ids = golden.ENCODER.encode(text)
    assert not CONTROL & set(ids)
    assert golden.ENCODER.decode(ids) == text


@given(requests, st.integers(60, 300))
def test_never_over_the_budget(request: FimRequest, budget: int) -> None:
    for fmt in golden.FORMATS.values():
        assert len(render(fmt, golden.ENCODER.encode, request, budget=budget).ids) <= budget


@given(requests, st.integers(60, 300))
def test_control_tokens_stand_where_the_format_puts_them(request: FimRequest, budget: int) -> None:
    prompt = render(FMT, golden.ENCODER.encode, request, budget=budget)
    control = [token for token in prompt.ids if token in CONTROL]
    files = [FMT.filename] * (len(prompt.items) + 1)
    assert control == [*files, FMT.fim_suffix, FMT.fim_prefix, FMT.fim_middle]
    assert prompt.ids[-1] == FMT.fim_middle


@given(requests)
def test_everything_fits_into_a_large_budget(request: FimRequest) -> None:
    prompt = render(FMT, golden.ENCODER.encode, request, budget=100_000)
    assert prompt.items == request.context
    encode = golden.ENCODER.encode
    expected: list[int] = []
    for item in request.context:
        expected += [FMT.filename, *encode(f"{item.path}\n"), *encode(item.text.removesuffix("\n") + "\n")]
    expected += [FMT.filename, *encode(f"{request.path}\n"), FMT.fim_suffix, *encode(request.suffix)]
    assert prompt.ids == [*expected, FMT.fim_prefix, *encode(request.prefix), FMT.fim_middle]


def test_prefix_keeps_its_end_and_suffix_its_start() -> None:
    request = FimRequest(path="a", prefix="start " * 500 + "END", suffix="START" + " end" * 500)
    prompt = render(FMT, golden.ENCODER.encode, request, budget=100)
    assert len(prompt.ids) == 100
    text = golden.ENCODER.decode(prompt.ids)
    assert text.endswith("END")
    psm = render(golden.FORMATS["qwen2.5-coder"], golden.ENCODER.encode, request, budget=100)
    assert golden.ENCODER.decode(psm.ids[: psm.ids.index(3)]).endswith("END")


def test_last_item_is_the_first_to_get_room() -> None:
    big = ContextItem(path="big.py", text="x = 1\n" * 13)
    small = ContextItem(path="small.py", text="y = 2\n")
    request = FimRequest(path="a.py", prefix="z", suffix="", context=(small, big))
    kept = [item.path for item in render(FMT, golden.ENCODER.encode, request, budget=80).items]
    assert kept == ["big.py"]
    both = render(FMT, golden.ENCODER.encode, request, budget=200)
    assert [item.path for item in both.items] == ["small.py", "big.py"]


def test_item_is_whole_or_not_there() -> None:
    item = ContextItem(path="b.py", text="x = 1\n" * 100)
    prompt = render(FMT, golden.ENCODER.encode, FimRequest(path="a", prefix="", suffix="", context=(item,)), budget=90)
    assert prompt.items == ()
    assert prompt.ids.count(FMT.filename) == 1


def test_huge_text_is_cut_before_it_is_encoded() -> None:
    seen: list[int] = []

    def encode(text: str) -> list[int]:
        seen.append(len(text))
        return golden.ENCODER.encode(text)

    huge = "word " * 2_000_000
    item = ContextItem(path="b", text=huge)
    render(FMT, encode, FimRequest(path="a", prefix=huge, suffix=huge, context=(item,)), budget=200)
    assert max(seen) <= 200 * 16


def test_one_long_line_keeps_its_end() -> None:
    request = FimRequest(path="a", prefix="x" * 1_000_000 + "\nEND", suffix="")
    assert render(FMT, golden.ENCODER.encode, request, budget=64).prefix_tokens > 40


def test_budget_without_room_is_refused() -> None:
    with pytest.raises(InputError, match="no room for a prompt"):
        render(FMT, golden.ENCODER.encode, FimRequest(path="a", prefix="", suffix=""), budget=4)


def test_format_travels_as_json() -> None:
    assert PromptFormat.from_json(json.loads(json.dumps(FMT.to_json()))) == FMT
    assert len({fmt.hash for fmt in golden.FORMATS.values()}) == len(golden.FORMATS)


def test_unknown_version_and_fields_are_refused() -> None:
    with pytest.raises(InputError, match="version 99"):
        PromptFormat.from_json({**FMT.to_json(), "version": 99})
    with pytest.raises(InputError, match="not a prompt format"):
        PromptFormat.from_json({"colour": 1})


@pytest.mark.parametrize("family", [name for name, _, _ in FAMILIES])
def test_families_are_detected(family: str) -> None:
    roles = next(tokens for name, tokens, _ in FAMILIES if name == family)
    added = [{"content": token, "id": 100 + number} for number, token in enumerate(roles.values())]
    found = detect_format({"added_tokens": added})
    assert found.name == family
    assert [getattr(found, role) for role in roles] == [token["id"] for token in added]


def test_checkpoint_without_fim_tokens_is_refused(tmp_path: Path) -> None:
    value = json.loads((golden.FOLDER / "tokenizer.json").read_text())
    value["added_tokens"] = [token for token in value["added_tokens"] if "fim" not in token["content"]]
    (tmp_path / "tokenizer.json").write_text(json.dumps(value))
    with pytest.raises(InputError, match="no fill-in-the-middle tokens"):
        load_format(tmp_path)


def test_format_beside_the_tokenizer_wins(tmp_path: Path) -> None:
    (tmp_path / "prompt_format.json").write_text(json.dumps(golden.FORMATS["starcoder2"].to_json()))
    assert load_format(tmp_path).name == "starcoder2"
    (tmp_path / "prompt_format.json").write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        load_format(tmp_path)


def test_unusable_tokenizers_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no tokenizer\.json"):
        load_encoder(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"added_tokens": [], "model": {"vocab": {"a": 0}}}')
    with pytest.raises(InputError, match="cannot be used as a tokenizer"):
        load_encoder(tmp_path)


def test_tokens_that_skip_the_merges_are_still_no_control_tokens() -> None:
    value = json.loads((golden.FOLDER / "tokenizer.json").read_text())
    value["model"]["ignore_merges"] = True
    value["pre_tokenizer"] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    assert not CONTROL & set(Encoder(value).encode("<fim_middle>"))
