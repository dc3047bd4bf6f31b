import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infill.context.packing import pack
from infill.errors import InputError
from infill.prompt import (
    FAMILIES,
    RESERVED_TOKENS,
    ContextItem,
    Encoder,
    FimRequest,
    PromptFormat,
    caret_of,
    infill_format,
    load_encoder,
    load_format,
    render,
    stop_ids,
    why_format,
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
    packed = pack(golden.FORMATS[case["format"]], golden.ENCODER.encode, request, budget=case["budget"])
    assert packed.prompt.ids == case["ids"]


@given(texts)
def test_text_is_never_parsed_for_control_tokens(text: str) -> None:
    ids = golden.ENCODER.encode(text)
    assert not CONTROL & set(ids)
    assert golden.ENCODER.decode(ids) == text


@given(requests, st.integers(60, 300))
def test_never_over_the_budget(request: FimRequest, budget: int) -> None:
    for fmt in golden.FORMATS.values():
        assert len(pack(fmt, golden.ENCODER.encode, request, budget=budget).prompt.ids) <= budget


@given(requests)
def test_control_tokens_are_where_the_format_puts_them(request: FimRequest) -> None:
    prompt = render(FMT, golden.ENCODER.encode, request)
    control = [token for token in prompt.ids if token in CONTROL]
    files = [FMT.filename] * (len(prompt.items) + 1)
    assert control == [*files, FMT.fim_suffix, FMT.fim_prefix, FMT.fim_middle]
    assert prompt.ids[-1] == FMT.fim_middle


@given(requests)
def test_everything_is_rendered_in_order(request: FimRequest) -> None:
    prompt = render(FMT, golden.ENCODER.encode, request)
    assert prompt.items == request.context
    encode = golden.ENCODER.encode
    expected: list[int] = []
    for item in request.context:
        expected += [FMT.filename, *encode(f"{item.path}\n"), *encode(item.text.removesuffix("\n") + "\n")]
    expected += [FMT.filename, *encode(f"{request.path}\n"), FMT.fim_suffix, *encode(request.suffix)]
    assert prompt.ids == [*expected, FMT.fim_prefix, *encode(request.prefix), FMT.fim_middle]


@given(requests)
def test_the_caret_is_read_back_from_a_prompt(request: FimRequest) -> None:
    request = dataclasses.replace(request, path=request.path.replace("\n", ""))
    for fmt in golden.FORMATS.values():
        ids = render(fmt, golden.ENCODER.encode, request).ids
        assert caret_of(fmt, golden.ENCODER.decode, ids) == (request.prefix, request.suffix)
        assert caret_of(fmt, golden.ENCODER.decode, ids[:-1]) is None
    assert caret_of(FMT, golden.ENCODER.decode, golden.ENCODER.encode(request.prefix)) is None


@given(texts, st.integers(1, 20))
def test_a_long_path_keeps_its_end(path: str, path_tokens: int) -> None:
    whole = golden.ENCODER.encode(f"{path}\n")
    request = FimRequest(path=path, prefix="x", suffix="")
    ids = render(FMT, golden.ENCODER.encode, request, path_tokens=path_tokens).ids
    assert ids[1 : ids.index(FMT.fim_suffix)] == whole[-path_tokens:]


def test_format_travels_as_json() -> None:
    assert PromptFormat.from_json(json.loads(json.dumps(FMT.to_json()))) == FMT
    assert len({fmt.hash for fmt in golden.FORMATS.values()}) == len(golden.FORMATS)


def test_unknown_version_and_fields_are_refused() -> None:
    with pytest.raises(InputError, match="version 99"):
        PromptFormat.from_json({**FMT.to_json(), "version": 99})
    with pytest.raises(InputError, match="not a prompt format"):
        PromptFormat.from_json({"colour": 1})


STARCODER = ("<reponame>", "<gh_stars>", "<issue_start>", "<jupyter_start>", "<commit_before>", "<empty_output>")
CHECKPOINTS: dict[str, tuple[str, tuple[str, ...], dict[str, Any], str]] = {
    "Mellum-4b": ("mellum", (*STARCODER, "<system>", "<think>"), {"model_type": "llama", "vocab_size": 98_304}, "spm"),
    "Mellum's tokenizer alone": ("mellum", (*STARCODER, "<system>", "<think>"), {}, "spm"),
    "six tokens in a Llama": ("mellum", (), {"model_type": "llama", "vocab_size": 49_152}, "spm"),
    "six tokens": ("mellum", (), {}, "spm"),
    "StarCoderBase": ("starcoder", STARCODER, {"model_type": "gpt_bigcode", "vocab_size": 49_152}, "psm"),
    "StarCoderBase, six tokens": ("starcoder", (), {"model_type": "gpt_bigcode"}, "psm"),
    "StarCoder's tokenizer alone": ("starcoder", STARCODER, {}, "psm"),
    "Granite-3b-code": ("starcoder", STARCODER, {"model_type": "llama", "vocab_size": 49_152}, "psm"),
    "stable-code-3b": ("starcoder", STARCODER, {"model_type": "stablelm"}, "psm"),
    "StarCoder2": ("starcoder2", ("<repo_name>", "<issue_start>"), {"model_type": "starcoder2"}, "psm"),
    "Qwen2.5-Coder": ("qwen2.5-coder", ("<|repo_name|>", "<|im_end|>"), {"model_type": "qwen2"}, "psm"),
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_families_are_detected(tmp_path: Path, name: str) -> None:
    family, others, config, order = CHECKPOINTS[name]
    roles = next(tokens for known, tokens, _ in FAMILIES if known == family)
    added = [{"content": token, "id": 100 + number} for number, token in enumerate((*roles.values(), *others))]
    (tmp_path / "tokenizer.json").write_text(json.dumps({"added_tokens": added}))
    if config:
        (tmp_path / "config.json").write_text(json.dumps(config))
    loaded = load_format(tmp_path)
    assert (loaded.name, loaded.order) == (family, order)
    assert [getattr(loaded, role) for role in roles] == [100 + number for number in range(len(roles))]
    assert why_format(tmp_path).startswith(f"{family}: ")


def test_a_damaged_config_decides_nothing(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    added = [{"content": token, "id": number} for number, token in enumerate(RESERVED_TOKENS)]
    (tmp_path / "tokenizer.json").write_text(json.dumps({"added_tokens": added}))
    assert load_format(tmp_path).name == "mellum"


CONTROL_NAMES = ["<|repo_name|>", "<|im_end|>", "<|file_sep|>", "<file_sep>", "<repo_name>", "</s>", "<s>", "[INST]"]
CONTROL_NAMES += [
    "<[fim-suffix]>",
    "<｜fim▁hole｜>",
    "<|eot_id|>",
    "<think>",
    "</tool_call>",
    "<jupyter_code>",
    "[PREFIX]",
]
TEXT_NAMES = ["    ", "\t\t", "<div>", "</td>", "<h1>", "->", "[]", "[i]", "<=", "<<", "x<y>", "<|", "|>"]


def _with_tokens(names: list[str], *, added: bool, special: bool = False) -> dict[str, Any]:
    """The golden tokenizer with further tokens, as added ones or in the vocabulary only."""
    value: dict[str, Any] = json.loads((golden.FOLDER / "tokenizer.json").read_text())
    first = len(value["model"]["vocab"])
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    for number, name in enumerate(names, first):
        if added:
            value["added_tokens"].append({"id": number, "content": name, "special": special, **flags})
        else:
            value["model"]["vocab"][name] = number
    return value


@pytest.mark.parametrize("added", [True, False], ids=["added", "in the vocabulary"])
@pytest.mark.parametrize("name", CONTROL_NAMES)
def test_a_control_token_is_known_without_a_flag(name: str, added: bool) -> None:
    value = _with_tokens([name], added=added)
    encoder = Encoder(value)
    number = encoder.vocab_size - 1
    assert encoder.control[number] == name
    assert number not in encoder.encode(f"x = {name} {name}")
    assert encoder.decode([*encoder.encode("a"), number]) == "a"
    assert number in stop_ids(FMT, encoder)


@pytest.mark.parametrize("name", TEXT_NAMES)
def test_a_token_that_is_text_stays_text(name: str) -> None:
    encoder = Encoder(_with_tokens([name], added=True))
    number = encoder.vocab_size - 1
    assert number not in encoder.control
    assert encoder.decode([number]) == name
    assert encoder.decode(encoder.encode(f"a{name}b")) == f"a{name}b"


def test_a_flag_makes_any_token_a_control_token() -> None:
    encoder = Encoder(_with_tokens(["enough"], added=True, special=True))
    assert encoder.control[encoder.vocab_size - 1] == "enough"


def test_checkpoint_without_fim_tokens_is_refused(tmp_path: Path) -> None:
    value = json.loads((golden.FOLDER / "tokenizer.json").read_text())
    value["added_tokens"] = [token for token in value["added_tokens"] if "fim" not in token["content"]]
    value["model"]["vocab"] = {token: number for token, number in value["model"]["vocab"].items() if "fim" not in token}
    (tmp_path / "tokenizer.json").write_text(json.dumps(value))
    with pytest.raises(InputError, match="no fill-in-the-middle tokens"):
        load_format(tmp_path)


def test_format_next_to_the_tokenizer_wins(tmp_path: Path) -> None:
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
