"""The model card of a real training: what the hub reads, and what a person must know."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from infill import config, prompt, storage
from infill.config import CorpusConfig
from infill.train import card, cost
from tests.builders import run_stage, tiny_model, tiny_repositories, tiny_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model trained on a corpus that was built from folders."""
    root = tmp_path_factory.mktemp("card")
    for repo, files in tiny_repositories(8).items():
        for path, text in files.items():
            file = root / "private" / "code" / repo / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(
                f"# SPDX-License-Identifier: {'MIT' if repo < 'repo_4' else 'Apache-2.0'}\n# {repo}\n{text}"
            )
    sources = CorpusConfig(sources=(f"dir:{root / 'private' / 'code'}",), validation_share=0.2, test_share=0.2)
    sources = replace(sources, near_duplicate_similarity=0.0, split_similarity=0.0)  # the tiny repositories are alike
    run_stage("corpus", sources, output=str(root / "corpus"))
    tokenizer = tiny_tokenizer(root / "tokenizer")
    settings = config.resolve("debug", {"pretrain.train.launcher": "local", "pretrain.train.steps": 2}).pretrain
    settings = replace(settings, licence="apache-2.0")
    run_stage("pretrain", settings, str(root / "corpus"), tokenizer, str(root / "model"))
    return root / "model"


def test_the_hub_can_read_it(folder: Path) -> None:
    data = ModelCard.load(folder / card.FILE_NAME).data
    assert (data.license, data.library_name, data.pipeline_tag) == ("apache-2.0", "transformers", "text-generation")
    assert data.language == ["code"]
    assert "fill-in-the-middle" in data.tags


def test_it_tells_data_training_and_what_is_not_known(folder: Path) -> None:
    text = (folder / card.FILE_NAME).read_text()
    report = storage.read_json(str(folder.parent / "corpus" / "report.json"))
    for licence in ("MIT", "Apache-2.0"):
        assert f"| {licence} | {report['by_licence'][licence]['documents']} |" in text
    train = report["by_split"]["train"]
    assert f"{train['documents']} files" in text
    record = storage.read_json(str(folder / card.FACTS_FILE))["trainings"][0]
    assert f"| pretrain | 2 | {record['tokens']:,.0f} | {record['flops']:.3g} | 1 x " in text
    assert "## Limitations" in text
    assert "(<filename>{path}\\n{content}\\n)* <filename>{path}\\n<fim_suffix>{suffix}<fim_prefix>{prefix}" in text
    if cost.find_device(record["spent"][0]["device"]) is None:
        assert "Unknown: the power of" in text


def test_no_folder_of_this_machine_is_reported(folder: Path) -> None:
    for name in (card.FILE_NAME, card.FACTS_FILE):
        assert "private" not in (folder / name).read_text()
    assert "`dir:code`" in (folder / card.FILE_NAME).read_text()


def test_the_release_adds_the_evaluation(folder: Path) -> None:
    figures = {"exact_match": {"value": 0.25, "low": 0.2, "high": 0.3}}
    record = {"metrics": figures, "holes": 40, "benchmark_digest": "0" * 64}
    text = card.complete(str(folder), record, "base has the highest kk.")
    data: Any = ModelCard(text).data
    assert data.eval_results is not None
    assert [(result.metric_type, result.metric_value) for result in data.eval_results] == [("exact_match", 0.25)]
    assert "| exact match | 0.250 | 0.200 to 0.300 |" in text
    assert "base has the highest kk." in text


def test_energy_is_estimated_where_the_power_is_known() -> None:
    spent = {"device": "NVIDIA H200", "workers": 8, "seconds": 7_200.0}
    part: dict[str, Any] = {**spent, "kwh": cost.energy_kwh(7_200, "NVIDIA H200", 8)}
    record = {"stage": "sft", "steps": 1.0, "tokens": 2.0, "flops": 3.0, "loss_first": 2.0, "loss_last": 1.0}
    created = record | {"spent": [part], "inputs": {}, "commit": "unknown"}
    facts = {"title": "Model", "about": "", "licence": "other", "trainings": [created]}
    text = card.render(facts, prompt.infill_format())
    assert "At most 17.5 kWh: hours x devices x the board's power limit x PUE 1.56" in text
    part["kwh"] = None
    assert "Unknown: the power of NVIDIA H200" in card.render(facts, prompt.infill_format())


def test_a_foreign_base_is_named_and_nothing_is_made_up(tmp_path: Path) -> None:
    facts = card.of_base(str(tmp_path / "home" / "StarCoder2"))
    text = card.render({"title": "Model", "about": "", **facts}, prompt.infill_format())
    assert "Not known to Infill: the base model `StarCoder2` has a card of its own." in text
    assert "Whoever trained the model decides" in text


STATED = {
    "one": ("license: apache-2.0", "apache-2.0"),
    "its own": ("license: other\nlicense_name: bigcode-openrail-m", "bigcode-openrail-m"),
    "two": ("license: [mit, apache-2.0]", "mit OR apache-2.0"),
    "none": ("language: [code]", "other"),
    "no text": ("license: 3", "other"),
    "no mapping": ("- license", "other"),
    "no YAML": ("license: [", "other"),
}


@pytest.mark.parametrize("case", STATED)
def test_a_published_folder_has_its_publishers_licence_and_a_digest(tmp_path: Path, case: str) -> None:
    metadata, licence = STATED[case]
    base = tiny_model(tmp_path / "home" / "StarCoder2")
    (Path(base) / "README.md").write_text(f"---\n{metadata}\n---\n# StarCoder2\n", encoding="utf-8")
    facts = card.of_base(str(base))
    digest = card.weights_digest(str(base))
    assert facts["base"] == {"source": "StarCoder2", "licence": licence, "sha256": digest}
    text = card.render({"title": "Model", "about": "", **facts}, prompt.infill_format())
    assert f"Base: `StarCoder2`, licence `{licence}`, SHA-256 `{digest}`." in text
