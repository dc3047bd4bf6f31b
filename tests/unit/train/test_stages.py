"""The stages pretrain, sft and dpo, one after the other in this process, and imported base models."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file

from infill import config, manifest, prompt, storage
from infill.artifacts.examples import SCHEMA, read_holes
from infill.config import Preset
from infill.errors import InputError
from infill.train import card, dpo, history, pretrain
from tests.builders import once, run_stage, tiny_repositories, tiny_tokenizer, write_documents

LOCAL = {
    f"{stage}.train.{name}": value
    for stage in ("pretrain", "sft", "dpo")
    for name, value in (("launcher", "local"), ("steps", 6), ("checkpoint_every", 3))
}
MODEL_FILES = {
    "README.md", "config.json", "generation_config.json", "manifest.json", "model.safetensors", "prompt_format.json",
    "tokenizer.json", "history.jsonl", "samples.jsonl", "card.json",
}  # fmt: skip


@dataclass(frozen=True)
class _Pairs:
    name: str = "pairs"


def stage(folder: Path, write: Callable[[], object]) -> str:
    """A stage folder with what `write` puts there."""

    def body() -> Mapping[str, float]:
        write()
        return {}

    once(stage="preferences", version=1, config=_Pairs(), inputs={}, output=str(folder), body=body)
    return str(folder)


@pytest.fixture(scope="module")
def preset() -> Preset:
    return config.resolve("debug", LOCAL)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, preset: Preset) -> Path:
    """A folder with corpus, tokenizer, base model, examples, SFT model, pairs and DPO model."""
    root = tmp_path_factory.mktemp("stages")
    corpus = write_documents(root / "corpus", tiny_repositories(8))
    tokenizer = tiny_tokenizer(root / "tokenizer")
    run_stage("pretrain", preset.pretrain, corpus, tokenizer, str(root / "pretrain"))
    run_stage("examples", preset.examples, corpus, tokenizer, str(root / "examples"))
    run_stage("sft", preset.sft, str(root / "examples"), str(root / "pretrain"), str(root / "sft"))
    rows = read_holes(str(root / "examples"), "train", 12).to_pylist()
    names = ("id", "repo", "path", "language", "prefix", "suffix", "context")
    pairs = [
        {**{k: row[k] for k in names}, "chosen": row["middle"], "rejected": "pass", "rejected_finished": True}
        for row in rows
    ]
    table = pa.Table.from_pylist(pairs)
    stage(root / "pairs", lambda: storage.write_table(str(root / "pairs" / "pairs.parquet"), table))
    run_stage("dpo", preset.dpo, str(root / "pairs"), str(root / "sft"), str(root / "dpo"))
    return root


@pytest.mark.parametrize("name", ["pretrain", "sft", "dpo"])
def test_a_model_folder_is_whole_and_loads_in_transformers(root: Path, name: str) -> None:
    from transformers import AutoModelForCausalLM

    folder = root / name
    assert {path.name for path in folder.iterdir()} >= MODEL_FILES
    assert not (folder / "scratch").exists()
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    assert loaded.generation_config.eos_token_id[0] == 0
    assert "infill" not in (folder / "config.json").read_text()
    trainings = storage.read_json(str(folder / "card.json"))["trainings"]
    assert [record["stage"] for record in trainings] == ["pretrain", "sft", "dpo"][: len(trainings)]
    assert trainings[-1]["stage"] == name
    assert f"| {name} | 6 |" in (folder / "README.md").read_text()


@pytest.mark.parametrize("name", ["pretrain", "sft", "dpo"])
def test_the_loss_falls(root: Path, name: str) -> None:
    metrics = manifest.load(str(root / name)).metrics
    assert metrics["loss_last"] < metrics["loss_first"]
    assert metrics["steps"] == 6


@pytest.mark.parametrize("name", ["pretrain", "sft"])
def test_there_is_little_padding(root: Path, name: str) -> None:
    assert manifest.load(str(root / name)).metrics["filled"] >= 0.98


def test_validation_and_preferences_are_reported(root: Path) -> None:
    groups = {"loss/python", "loss/fim", "loss/plain", "loss/python/fim", "loss/python/plain"}
    assert groups <= set(history.read(str(root / "pretrain"))[-1])
    assert {"bits_per_byte", "validation_loss", "parameters"} <= set(manifest.load(str(root / "pretrain")).metrics)
    assert {"bits_per_byte", "validation_loss"} <= set(manifest.load(str(root / "sft")).metrics)
    assert {"accuracy", "margin"} <= set(manifest.load(str(root / "dpo")).metrics)
    first = history.read(str(root / "dpo"))[0]
    assert first["loss"] == pytest.approx(0.693, abs=0.05)  # log 2: the model is the reference


def test_a_finished_stage_is_not_trained_again(root: Path, preset: Preset) -> None:
    before = (root / "sft" / "history.jsonl").stat().st_mtime_ns
    run_stage("sft", preset.sft, str(root / "examples"), str(root / "pretrain"), str(root / "sft"))
    assert (root / "sft" / "history.jsonl").stat().st_mtime_ns == before


def test_a_stage_killed_before_its_manifest_only_writes_that(root: Path, preset: Preset) -> None:
    (root / "dpo" / "manifest.json").unlink()
    before = (root / "dpo" / "model.safetensors").stat().st_mtime_ns
    metrics = run_stage("dpo", preset.dpo, str(root / "pairs"), str(root / "sft"), str(root / "dpo"))
    assert metrics["steps"] == 6
    assert (root / "dpo" / "model.safetensors").stat().st_mtime_ns == before


def test_the_reference_is_computed_once(root: Path, tmp_path: Path, preset: Preset) -> None:
    """Another run on the same pairs takes what the first has left: here a reference that loves the rejected ones."""
    (file,) = (root / dpo.REFERENCES).iterdir()
    table = storage.read_table(str(file)).to_pydict()
    table["rejected"] = [value + 1_000 for value in table["rejected"]]
    storage.write_table(str(tmp_path / dpo.REFERENCES / file.name), pa.table(table))
    other = replace(preset.dpo, beta=0.2)
    run_stage("dpo", other, str(root / "pairs"), str(root / "sft"), str(tmp_path / "out"))
    assert history.read(str(tmp_path / "out"))[0]["loss"] < 1e-3


def test_another_model_has_another_reference(root: Path, tmp_path: Path, preset: Preset) -> None:
    shutil.copytree(root / dpo.REFERENCES, tmp_path / dpo.REFERENCES)
    run_stage("dpo", preset.dpo, str(root / "pairs"), str(root / "pretrain"), str(tmp_path / "out"))
    assert len(list((tmp_path / dpo.REFERENCES).iterdir())) == 2
    assert history.read(str(tmp_path / "out"))[0]["loss"] == pytest.approx(0.693, abs=0.05)


def test_examples_that_are_not_there_are_reported(root: Path, tmp_path: Path, preset: Preset) -> None:
    table = SCHEMA.empty_table()
    empty = stage(
        tmp_path / "empty", lambda: storage.write_table(str(tmp_path / "empty" / "examples" / "train.parquet"), table)
    )
    with pytest.raises(InputError, match="has no examples in its train split"):
        run_stage("sft", preset.sft, empty, str(root / "pretrain"), str(tmp_path / "out"))


@pytest.mark.parametrize("name", ["sft", "dpo"])
def test_a_tokenizer_of_another_model_is_refused(root: Path, tmp_path: Path, preset: Preset, name: str) -> None:
    base = tmp_path / "base"
    shutil.copytree(root / "sft", base)
    for name_of_file in ("tokenizer.json", "manifest.json"):
        (base / name_of_file).unlink()
    tiny_tokenizer(tmp_path / "larger", 600)
    shutil.copy(tmp_path / "larger" / "tokenizer.json", base)
    once(stage="sft", output=str(base), body=dict)
    data = "examples" if name == "sft" else "pairs"
    with pytest.raises(InputError, match=r"embeds 512 tokens, but its tokenizer has \d+; they do not belong together"):
        run_stage(name, getattr(preset, name), str(root / data), str(base), str(tmp_path / "out"))


def test_a_corpus_smaller_than_a_batch_is_refused(root: Path, tmp_path: Path, preset: Preset) -> None:
    corpus = write_documents(tmp_path / "corpus", {"only": {"a.py": "x = 1\n"}}, {"only": "train"})
    with pytest.raises(
        InputError, match=r"has \d tokens, but a batch takes 1,024; add sources or lower pretrain.train"
    ):
        run_stage("pretrain", preset.pretrain, corpus, str(root / "tokenizer"), str(tmp_path / "out"))


def test_a_large_corpus_is_not_read_to_its_end(root: Path, tmp_path: Path) -> None:
    encoder = prompt.load_encoder(root / "tokenizer")
    (tmp_path / "documents").mkdir()
    text = {"repo": "r", "path": "p", "language": "python", "content": "x = 1\n" * 50, "split": "train"}
    pq.write_table(pa.Table.from_pylist([text]), tmp_path / "documents" / "part-0.parquet")
    (tmp_path / "documents" / "part-1.parquet").write_bytes(b"damaged")
    pretrain.check_size(str(tmp_path), 16, encoder)
    with pytest.raises(InputError, match="damaged"):
        pretrain.check_size(str(tmp_path), 10_000, encoder)


def published(folder: Path, family: str, model_type: str, tokens: Mapping[str, str]) -> Path:
    """A random checkpoint as one would download it: architecture and FIM tokens of `family`, nothing of ours."""
    from transformers import AutoConfig, AutoModelForCausalLM

    tiny_tokenizer(folder)
    (folder / "manifest.json").unlink()
    (folder / "prompt_format.json").unlink()
    value = json.loads((folder / "tokenizer.json").read_text())
    for token, wanted in zip(value["added_tokens"], tokens.values(), strict=False):
        value["model"]["vocab"][wanted] = value["model"]["vocab"].pop(token["content"])
        token["content"] = wanted
    (folder / "tokenizer.json").write_text(json.dumps(value))
    settings: dict[str, Any] = {"vocab_size": 512, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256}
    shape = AutoConfig.for_model(model_type, **settings, **heads, bos_token_id=0, eos_token_id=0)
    AutoModelForCausalLM.from_config(shape).save_pretrained(folder)  # type: ignore[no-untyped-call]
    return folder


@pytest.mark.parametrize(
    ("family", "model_type"), [("mellum", "llama"), ("starcoder2", "starcoder2"), ("qwen2.5-coder", "qwen2")]
)
def test_a_published_base_is_imported_and_fine_tuned(
    root: Path, tmp_path: Path, preset: Preset, family: str, model_type: str
) -> None:
    tokens = next(roles for name, roles, _ in prompt.FAMILIES if name == family)
    base = published(tmp_path / "base", family, model_type, tokens)
    settings = replace(preset.pretrain, base_model=str(base))
    run_stage("pretrain", settings, str(root / "corpus"), str(root / "tokenizer"), str(tmp_path / "model"))
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == (base / "model.safetensors").read_bytes()
    assert prompt.load_format(tmp_path / "model").name == family
    run_stage("sft", preset.sft, str(root / "examples"), str(tmp_path / "model"), str(tmp_path / "sft"))
    assert prompt.load_format(tmp_path / "sft").name == family


def test_a_base_of_our_own_starts_another_run(root: Path, tmp_path: Path, preset: Preset) -> None:
    """What `infill run --base-model` does first: its tokenizer, its weights, its card with what it is made of."""
    base = shutil.copytree(root / "pretrain", tmp_path / "base")
    short = config.resolve("debug", {**LOCAL, "base_model": str(base)})
    run_stage("tokenizer", short.tokenizer, str(root / "corpus"), str(tmp_path / "tokenizer"))
    assert (tmp_path / "tokenizer" / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()
    run_stage("pretrain", short.pretrain, str(root / "corpus"), str(tmp_path / "tokenizer"), str(tmp_path / "model"))
    for name in ("model.safetensors", "prompt_format.json", "config.json", "generation_config.json"):
        assert (tmp_path / "model" / name).read_bytes() == (base / name).read_bytes()
    facts = [storage.read_json(str(folder / card.FACTS_FILE)) for folder in (base, tmp_path / "model")]
    assert facts[0] == facts[1]
    run_stage("sft", preset.sft, str(root / "examples"), str(tmp_path / "model"), str(tmp_path / "sft"))
    content = (tmp_path / "sft" / card.FILE_NAME).read_text()
    assert "| pretrain | 6 |" in content
    assert "| sft | 6 |" in content


def test_a_base_without_infilling_tokens_is_refused(root: Path, tmp_path: Path, preset: Preset) -> None:
    base = published(tmp_path / "base", "none", "llama", {"endoftext": "<s>", "fim_prefix": "</s>"})
    settings = replace(preset.pretrain, base_model=str(base))
    with pytest.raises(InputError, match="no fill-in-the-middle tokens"):
        run_stage("pretrain", settings, str(root / "corpus"), str(root / "tokenizer"), str(tmp_path / "model"))


def test_a_base_without_infilling_tokens_is_taught_them(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    base = published(tmp_path / "base", "none", "llama", {"endoftext": "<|endoftext|>", "fim_prefix": "<unused0>"})
    settings = {**LOCAL, "base_model": str(base), "add_fim": True, "pretrain.continued": True}
    preset = config.resolve("debug", settings)
    run_stage("tokenizer", preset.tokenizer, str(root / "corpus"), str(tmp_path / "tokenizer"))
    run_stage("pretrain", preset.pretrain, str(root / "corpus"), str(tmp_path / "tokenizer"), str(tmp_path / "model"))
    assert prompt.load_format(tmp_path / "model") == prompt.load_format(tmp_path / "tokenizer")
    before, after = (load_file(folder / "model.safetensors") for folder in (base, tmp_path / "model"))
    name = "model.layers.0.mlp.up_proj.weight"
    assert 0 < float((after[name] - before[name]).abs().max()) < 0.1  # six steps away, not another start


def test_training_does_not_continue_with_another_tokenizer(root: Path, tmp_path: Path, preset: Preset) -> None:
    tokens = next(roles for name, roles, _ in prompt.FAMILIES if name == "mellum")
    base = published(tmp_path / "base", "mellum", "llama", tokens)
    settings = replace(preset.pretrain, base_model=str(base), continued=True)
    with pytest.raises(InputError, match="is not that of the base model"):
        run_stage("pretrain", settings, str(root / "corpus"), str(root / "tokenizer"), str(tmp_path / "model"))
