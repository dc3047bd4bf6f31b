"""Completions of fixed holes: the same holes each time, and nothing is changed by looking at them."""

from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from infill import config, model, prompt
from infill.config import TrainConfig
from infill.train import history, samples
from infill.train.engine import PlainEngine
from tests.builders import run_stage, tiny_repositories, tiny_tokenizer, write_documents


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("samples")
    write_documents(folder / "corpus", tiny_repositories(8))
    tiny_tokenizer(folder / "tokenizer")
    return folder


def trained(root: Path, name: str, every: int) -> Path:
    preset = config.resolve("debug", {"pretrain.train.launcher": "local", "pretrain.train.steps": 4})
    settings = replace(preset.pretrain, train=replace(preset.pretrain.train, sample_every=every))
    run_stage("pretrain", settings, str(root / "corpus"), str(root / "tokenizer"), str(root / name))
    return root / name


def test_looking_changes_no_weight_and_shows_the_same_holes(root: Path) -> None:
    seen, unseen = trained(root, "seen", 2), trained(root, "unseen", 0)
    weights = [safetensors.torch.load_file(folder / "model.safetensors") for folder in (seen, unseen)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[1])
    assert not (unseen / history.SAMPLES_FILE).exists()
    rows = history.read(str(seen), history.SAMPLES_FILE)
    assert [(row["step"], row["hole"]) for row in rows] == [(2, 1), (2, 2), (4, 1), (4, 2)]
    for first, second in zip(rows[:2], rows[2:], strict=True):
        names = ("path", "language", "before", "expected", "after")
        assert [first[name] for name in names] == [second[name] for name in names]


def test_holes_are_of_the_held_out_split_and_can_be_put_together_again(root: Path) -> None:
    held_out = tiny_repositories(8)["repo_6"]
    drawn = samples.of_documents(str(root / "corpus"), "validation", 3, seed=0)
    assert len(drawn) == 3
    assert [hole.middle for hole in drawn] == [
        hole.middle for hole in samples.of_documents(str(root / "corpus"), "validation", 3, seed=0)
    ]
    for hole in drawn:
        assert hole.request.prefix + hole.middle + hole.request.suffix == held_out[hole.request.path]
        assert 0 < len(hole.middle) <= samples.MIDDLE_CHARS


def test_no_repository_comes_twice_before_each_came_once(tmp_path: Path) -> None:
    repositories = tiny_repositories(8, files=8)
    write_documents(tmp_path / "corpus", repositories, dict.fromkeys(repositories, "validation"))
    drawn = samples.of_documents(str(tmp_path / "corpus"), "validation", 8, seed=0)
    texts = [hole.request.prefix + hole.middle + hole.request.suffix for hole in drawn]
    assert len({text.split(" of ")[1].split(":")[0] for text in texts}) == 8


def test_a_split_without_text_shows_nothing(root: Path, tmp_path: Path) -> None:
    write_documents(tmp_path / "corpus", {"only": {"a.py": "x = 1\n"}}, {"only": "train"})
    assert samples.of_documents(str(tmp_path / "corpus"), "validation", 3, seed=0) == []
    complete = samples.completions(list, root / "tokenizer")
    assert complete(engine()) == []


def engine() -> PlainEngine:
    built = model.build(model.llama_config(config.debug().pretrain.model, 512, prompt.infill_format()))
    return PlainEngine(built, TrainConfig(launcher="local"), torch.device("cpu"))


def test_other_workers_wait(root: Path) -> None:
    def refuse() -> list[samples.SampleHole]:
        raise AssertionError

    other = engine()
    other.rank = 1
    assert samples.completions(refuse, root / "tokenizer")(other) == []
