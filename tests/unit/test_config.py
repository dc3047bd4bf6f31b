from typing import Any

import pytest

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
        ({"nothing.there": 1}, "no setting 'nothing.there'"),
        ({"pretrain.steps": 1}, "no setting 'pretrain.steps'"),
        ({"corpus.seed.x": 1}, "seed has no parts"),
        ({"corpus.seed": "1"}, "wants int"),
        ({"corpus.seed": True}, "wants int"),
        ({"corpus.sources": "dir:/x"}, "wants a list"),
        ({"pretrain.train.betas": [0.9]}, "wants 2 values"),
        ({"pretrain.train.steps": 0}, "must be positive"),
        ({"corpus.sources": []}, "is empty"),
        ({"tokenizer.vocab_size": 100}, "at least 288"),
        ({"pretrain.model.heads": 7}, "not a multiple"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        config.resolve("debug", settings)


def test_unknown_preset_names_the_others() -> None:
    with pytest.raises(InputError, match="debug, demo, base, small"):
        config.resolve("huge")


def test_settings_of_the_command_line() -> None:
    parsed = config.parse_settings(["a.b=10", "c=text", 'd=["x"]', "e=a=b"])
    assert parsed == {"a.b": 10, "c": "text", "d": ["x"], "e": "a=b"}
    with pytest.raises(InputError, match="NAME=VALUE"):
        config.parse_settings(["steps"])
