"""The experiments on retrieval: an encoder against the index, and a monorepo against its parts."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infill import cli, manifest
from infill.artifacts import experiment as artifact
from infill.context import ProjectIndex, Query
from infill.errors import InputError
from infill.experiments import monorepo
from infill.experiments.embedder import EmbeddedWindows, Embedder
from infill.experiments.embeddings import DEFAULT, EMBEDDED, IOU, EmbeddingsConfig, run
from infill.experiments.experiment import CELL
from tests import builders
from tests.unit.experiments import chained

SIZES = ["--holes", "4", "--max-prompt-tokens", "128", "--max-new-tokens", "8", "--context-tokens", "1000"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return builders.tiny_model(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of width 32 with random weights, which reads characters."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("encoder")
    pieces = ["[PAD]", "[UNK]", *map(chr, range(33, 127)), *(f"##{chr(code)}" for code in range(33, 127))]
    tokenizer = Tokenizer(models.WordPiece({piece: place for place, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        settings: dict[str, Any] = {
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
        }
        BertModel(BertConfig(vocab_size=len(pieces), **settings)).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]").save_pretrained(folder)  # type: ignore[no-untyped-call]
    return folder


def test_an_embedding_is_the_same_in_any_company_and_has_length_one(encoder: Path) -> None:
    embed = Embedder(encoder)
    texts = [f"alpha {'beta ' * number}" for number in range(40)] + ["z" * 3_000]
    rows = embed(texts)
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    assert np.allclose(rows[[3, 40]], embed([texts[3], texts[40]]), atol=1e-5)


def test_the_nearest_windows_are_those_of_the_products_without_the_current_file(encoder: Path) -> None:
    project = chained.chained_files(30)
    path = "pack0/part0/file_0.py"
    index = ProjectIndex.from_documents([*project.items(), ("copy/of_it.py", project[path])])
    windows, embed = EmbeddedWindows(index, Embedder(encoder)), Embedder(encoder)
    lines = project[path].split("\n")
    query = Query(path=path, prefix="\n".join(lines[:6]), suffix="\n" + "\n".join(lines[6:]))
    items = windows.rank(query, 12)
    assert len(items) == 12
    assert not {item.path for item in items} & {path, "copy/of_it.py"}
    places = {(item.path, line) for item in items for line in range(item.first_line, item.last_line + 1)}
    assert len(places) == sum(item.last_line - item.first_line + 1 for item in items), "no line twice"
    around = "\n".join([*lines[:6], *lines[6:16]]) + "\n"
    scores = embed([item.text for item in items]) @ embed([around])[0]
    assert all(a >= b - 1e-5 for a, b in pairwise(scores))


def test_embeddings_are_compared_with_the_overlap_of_identifiers(
    model: str, encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = ["--repo", str(chained.write(tmp_path / "one")), "--repo", str(chained.write(tmp_path / "two"))]
    output = str(tmp_path / "x")
    arguments = [*places, "--model", model, "--embedder", str(encoder), *SIZES, "--output", output]
    assert cli.main(["experiment", "embeddings", *arguments]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["cells"] == [IOU, EMBEDDED, DEFAULT]
    rows = artifact.read_measurements(output)
    assert {row["hole"].partition("/")[0] for row in rows} == {"one", "two"}
    assert all(row["prompt_tokens"] <= 128 and row["query_ms"] > 0 for row in rows)
    default = [row["coverage"] for row in rows if row[CELL] == DEFAULT]
    assert np.mean(default) > 0.5, "the caller's file leads to the file that it calls"
    by_cell = result["measures"]["index_s_per_mb"]["means"]
    assert by_cell[EMBEDDED]["value"] > by_cell[IOU]["value"]
    assert {"value", "low", "high"} == set(result["measures"]["query_p99"]["means"][IOU])
    assert result["conclusion"] in artifact.read_page(manifest.load(output))


def test_what_cannot_be_compared_is_said_in_a_sentence(model: str, encoder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="not an encoder that transformers can read"):
        Embedder(tmp_path / "empty")
    for name, act in (("a", _embeddings), ("b", _monorepo)):
        with pytest.raises(InputError, match="only 0 of 4 places"):
            act(tmp_path / "empty", model, str(encoder), str(tmp_path / name))


def _embeddings(folder: Path, model: str, encoder: str, output: str) -> None:
    run(EmbeddingsConfig(holes=4), repositories=[folder], model=model, embedder=encoder, output=output)


def _monorepo(folder: Path, model: str, encoder: str, output: str) -> None:
    monorepo.run(monorepo.MonorepoConfig(holes=4), repository=folder, model=model, output=output)


def test_a_monorepo_has_what_its_folders_lack(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The next file is always in the other folder, so only the whole has its names."""
    output = str(tmp_path / "x")
    arguments = ["--repo", str(chained.write(tmp_path / "repo")), "--model", model, *SIZES, "--output", output]
    assert cli.main(["experiment", "monorepo", *arguments]) == 0
    result = json.loads(capsys.readouterr().out)
    covered = {cell: each["value"] for cell, each in result["measures"]["coverage"]["means"].items()}
    assert covered[monorepo.FOLDER] == covered[monorepo.SUBSYSTEM] == 0 < covered[monorepo.WHOLE]
    files = {cell: each["value"] for cell, each in result["measures"]["files"]["means"].items()}
    assert files[monorepo.FOLDER] == files[monorepo.SUBSYSTEM] < files[monorepo.WHOLE] == 130
    sizes = {cell: each["value"] for cell, each in result["measures"]["index_mb"]["means"].items()}
    assert sizes[monorepo.FOLDER] < sizes[monorepo.WHOLE]


@pytest.mark.parametrize(
    ("path", "folder", "subsystem"),
    [
        ("a.c", "", ""),
        ("kernel/a.c", "kernel/", "kernel/"),
        ("drivers/net/e1000/a.c", "drivers/net/e1000/", "drivers/net/"),
    ],
)
def test_a_part_of_a_monorepo_is_a_folder(path: str, folder: str, subsystem: str) -> None:
    assert monorepo.folder_of(monorepo.FOLDER, path) == folder
    assert monorepo.folder_of(monorepo.SUBSYSTEM, path) == subsystem
