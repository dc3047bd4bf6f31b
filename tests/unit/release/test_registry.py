"""Tests of the model registry on a real MLflow."""

from pathlib import Path

import pytest

from infill import tracking
from infill.errors import InputError, ServiceError
from infill.release import registry
from infill.release.registry import Version
from tests.mlflow_store import Server


def _register(digest: str, name: str = "infill", uri: str = "") -> Version:
    return registry.register(name, model_uri=uri or f"/store/{digest}", tags={registry.MODEL_DIGEST: digest})


def _aliases(name: str = "infill") -> tuple[str, str]:
    versions = registry.champion(name), registry.previous(name)
    first, second = ("" if version is None else version.version for version in versions)
    return first, second


def test_an_unknown_model_has_no_champion(mlflow_store: Path) -> None:
    assert registry.champion("infill") is None
    assert registry.find("infill", "abc") is None


def test_a_model_is_registered_once(mlflow_store: Path) -> None:
    first, again, other = _register("aa"), _register("aa"), _register("bb")
    assert first == again
    assert (first.version, other.version) == ("1", "2")
    assert (first.model_uri, first.model_digest) == ("/store/aa", "aa")
    assert registry.find("infill", "bb") == other


def test_promotion_moves_the_aliases_and_may_be_repeated(mlflow_store: Path) -> None:
    for number, digest in enumerate(["aa", "bb", "cc"], start=1):
        for _ in range(2):
            registry.promote(_register(digest))
            assert _aliases() == (str(number), str(number - 1) if number > 1 else "")


def test_rollback_returns_to_the_previous_version_and_marks_the_other(mlflow_store: Path) -> None:
    registry.promote(_register("aa"))
    with pytest.raises(InputError, match="no previous version"):
        registry.rollback("infill")
    registry.promote(_register("bb"))
    assert registry.rollback("infill").model_digest == "aa"
    assert _aliases() == ("1", "")
    bad = registry.find("infill", "bb")
    assert bad is not None
    assert registry.ROLLED_BACK in bad.tags
    with pytest.raises(InputError, match="no previous version"):
        registry.rollback("infill")


def test_a_rollback_that_was_killed_half_way_is_ended_by_the_next(mlflow_store: Path) -> None:
    registry.promote(_register("aa"))
    registry.promote(_register("bb"))
    tracking.client().set_registered_model_alias("infill", registry.CHAMPION, "1")
    assert registry.rollback("infill").model_digest == "aa"
    assert _aliases() == ("1", "")


def test_a_server_takes_a_local_model_and_an_immutable_address(
    mlflow_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server.uri)
    local = _register("aa", "on-server")
    assert (local.model_uri, local.version) == ("/store/aa", "1")
    registry.promote(local)
    remote = _register("bb", "on-server", "s3://bucket/store/sft/0123")
    registry.promote(remote)
    assert _aliases("on-server") == ("2", "1")
    source = tracking.client().get_model_version("on-server", "2").source
    assert source == "s3://bucket/store/sft/0123"


def test_what_mlflow_refuses_is_reported_in_a_sentence(mlflow_store: Path) -> None:
    with pytest.raises(ServiceError, match=r"the model registry at sqlite.* refused"):
        registry.promote(Version(name="absent", version="1", model_uri="", model_digest="", tags={}))
