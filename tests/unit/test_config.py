from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infill import config
from infill.errors import InputError


@pytest.mark.parametrize("name", config.PRESETS)
def test_presets_build(name: str) -> None:
    assert config.resolve(name) == config.PRESETS[name]()


def test_published_architecture() -> None:
    model = config.mellum_4b().pretrain.model
    assert (model.layers, model.width, model.mlp_width, model.heads, model.kv_heads) == (30, 3072, 8256, 24, 24)
    assert (model.context_length, model.rope_base, model.norm_eps) == (8192, 500_000, 1e-6)
    assert config.mellum_4b_gqa().pretrain.model.kv_heads == 4


def test_settings_reach_their_field() -> None:
    resolved = config.resolve("debug", {"pretrain.train.steps": 3, "register.floors": [["kk", 0]], "corpus.seed": 7})
    assert resolved.pretrain.train.steps == 3
    assert resolved.register.floors == (("kk", 0.0),)
    assert resolved.corpus.seed == 7


def test_short_names_stand_for_several_fields() -> None:
    resolved = config.resolve("debug", {"sources": ["dir:/code"], "base_model": "/model", "seed": 5})
    assert resolved.corpus.sources == ("dir:/code",)
    assert resolved.tokenizer.base_model == resolved.pretrain.base_model == "/model"
    assert {resolved.corpus.seed, resolved.pretrain.train.seed, resolved.evaluate.seed, resolved.dpo.train.seed} == {5}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"nothing.there": 1}, "unknown setting 'nothing.there'; settings begin with sources"),
        ({"sft.train.step": 1}, "unknown setting 'sft.train.step'; did you mean 'sft.train.steps'?"),
        ({"pretrain.steps": 1}, "unknown setting 'pretrain.steps'; did you mean 'pretrain.train.steps'"),
        ({"sead": 1}, "did you mean 'seed'?"),
        ({"corpus.seed.x": 1}, "did you mean 'corpus.seed'"),
        ({"sft.train": 1}, "'sft.train' is a group of settings; set one of sft.train.steps, "),
        ({"corpus.seed": "1"}, 'corpus.seed must be an integer, got "1"'),
        ({"corpus.seed": True}, "must be an integer, got true"),
        ({"corpus.seed": 16.0}, "must be an integer, got 16.0"),
        ({"corpus.seed": None}, "must be an integer, got null"),
        ({"register.name": 5}, "must be a string, got 5"),
        ({"corpus.validation_share": float("nan")}, "must be a number, got NaN"),
        ({"corpus.validation_share": 10**400}, "must be a number, got 1000"),
        ({"corpus.sources": "dir:/x"}, r'must be a list such as \["text"\], got "dir:/x"'),
        ({"corpus.sources": {"dir": 1}}, "must be a list"),
        ({"pretrain.train.betas": [0.9]}, r"must have 2 values, such as \[0.5, 0.5\], got \[0.9\]"),
        ({"pretrain.train.steps": 0}, "must be positive"),
        ({"corpus.sources": []}, "is empty"),
        ({"tokenizer.vocab_size": 100}, "at least 288"),
        ({"pretrain.model.heads": 7}, "model.width must be a multiple of model.heads .7., got 64"),
        ({"seed": -1}, "cannot set corpus.seed=-1: a seed must be between 0 and"),
        ({"dpo.train.seed": 2**32}, "a seed must be between 0 and 4294967295"),
        ({"report.title": "a\0b"}, "must be Unicode text"),
        ({"corpus.sources": ["dir:/\udcff"]}, "must be Unicode text"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        config.resolve("debug", settings)


def test_unknown_preset_names_the_others() -> None:
    with pytest.raises(InputError, match="debug, demo, finetune, adapter, base, small"):
        config.resolve("huge")


def test_settings_are_applied_at_once_in_any_order() -> None:
    """Each alone would be refused: a batch is a multiple of a micro-batch."""
    both = {"pretrain.train.micro_batch_tokens": 3_000, "pretrain.train.batch_tokens": 6_000}
    for settings in (both, dict(reversed(both.items()))):
        train = config.resolve("debug", settings).pretrain.train
        assert (train.micro_batch_tokens, train.batch_tokens) == (3_000, 6_000)
    with pytest.raises(InputError, match=r"cannot set pretrain.train.batch_tokens=6000, pretrain.train.steps=1: batch"):
        config.resolve("debug", {"pretrain.train.batch_tokens": 6_000, "pretrain.train.steps": 1})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("report.title=2024", "2024"),
        ("report.title=true", "true"),
        ("report.title=null", "null"),
        ("report.title=", ""),
        ("report.title=a=b", "a=b"),
        ("report.title=[1]", "[1]"),
        ('report.title="quoted é"', "quoted é"),
        ('report.title=it\'s "half" quoted', 'it\'s "half" quoted'),
        ("base_model=123", "123"),
        ("sft.train.steps=16", 16),
        ("sft.train.steps=16.5", 16.5),
        ("sft.train.learning_rate=1e-3", 1e-3),
        ("dpo.beta=-0.5", -0.5),
        ("sft.train.recompute=true", True),
        ("sft.train.recompute=True", "True"),
        ("sft.train.betas=[0.9, 0.99]", [0.9, 0.99]),
        ('corpus.languages=["c", "é"]', ["c", "é"]),
        ("corpus.seed=" + "1" * 5_000, "1" * 5_000),
    ],
)
def test_value_on_the_command_line_has_the_type_that_it_is_written_in(text: str, value: object) -> None:
    (parsed,) = config.parse_settings([text]).values()
    assert (parsed, type(parsed)) == (value, type(value))


def test_settings_of_the_command_line() -> None:
    parsed = config.parse_settings(["a.b=10", "c=text", 'd=["x"]', "e=a=b"])
    assert parsed == {"a.b": 10, "c": "text", "d": ["x"], "e": "a=b"}
    for wrong in ("steps", "=1", " =1"):
        with pytest.raises(InputError, match="NAME=VALUE"):
            config.parse_settings([wrong])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=9), json_values, max_size=4))
def test_settings_travel_as_text_that_nothing_on_the_way_changes(settings: dict[str, Any]) -> None:
    """Types arrive exactly; no placeholder of KFP, of Kubernetes or of a shell is in a string."""
    text = config.to_text(settings)
    arrived = config.from_text(text)
    assert arrived == settings
    assert repr(arrived) == repr(settings)
    assert text.isascii()
    assert "$" not in text
    assert "/" not in text


@pytest.mark.parametrize("text", ["{{$.pipeline_root}}", "$(HOME)", "/kfp-workspace/x", '"$HOME"', "😀 \u2028 é"])
def test_what_a_transport_interprets_is_escaped(text: str) -> None:
    travelling = config.to_text({"sources": [text]})
    assert not any(sign in travelling for sign in ("{{", "$", "/"))
    assert config.from_text(travelling) == {"sources": [text]}


@pytest.mark.parametrize("text", ["[1]", "{", "3", '"x"', "nonsense", "[" * 100_000])
def test_text_that_holds_no_settings_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="settings must be a JSON object"):
        config.from_text(text)
