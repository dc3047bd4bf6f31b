"""LoRA in the stages that train: what it changes, what it leaves, what is written."""

import shutil
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from infill import config, manifest, model, prompt, storage
from infill.artifacts import adapter as artifact
from infill.artifacts.examples import read_holes
from infill.config import Preset
from infill.errors import InputError
from infill.train import adapter, card, dpo, lora_matrices
from tests.builders import run_stage, tiny_model, tiny_repositories, write_documents
from tests.unit.train.test_stages import stage

LORA = {
    f"{name}.train.{field}": value
    for name in ("pretrain", "sft", "dpo")
    for field, value in (("launcher", "local"), ("steps", 6), ("checkpoint_every", 3), ("lora_rank", 4))
}
IDS = torch.arange(40, 60)[None]


@pytest.fixture(scope="module")
def preset() -> Preset:
    return config.resolve("debug", LORA)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, preset: Preset) -> Path:
    """A folder with a base, examples, and a model that was fine-tuned with LoRA."""
    root = tmp_path_factory.mktemp("adapter")
    corpus, base = write_documents(root / "corpus", tiny_repositories(8)), tiny_model(root / "base")
    run_stage("examples", preset.examples, corpus, base, str(root / "examples"))
    run_stage("sft", preset.sft, str(root / "examples"), base, str(root / "sft"))
    return root


def logits(decoder: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        result: torch.Tensor = decoder(IDS).logits
    return result


def test_the_folder_is_the_base_with_the_adapter_merged(root: Path) -> None:
    adapted = PeftModel.from_pretrained(model.load(root / "base"), root / "sft" / artifact.FOLDER)
    merged = model.load(root / "sft")
    torch.testing.assert_close(logits(merged), logits(adapted), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(logits(merged), logits(model.load(root / "base")), atol=1e-4)


def test_only_rows_of_control_tokens_change_in_the_embedding(root: Path) -> None:
    before, after = (model.load(root / name).get_input_embeddings().weight for name in ("base", "sft"))
    changed = set(torch.nonzero((before != after).any(1))[:, 0].tolist())
    assert changed
    assert changed <= set(prompt.load_format(root / "base").stop_ids)


@pytest.fixture(scope="module")
def published(root: Path) -> Path:
    """The adapter by itself."""
    adapter.publish(str(root / "sft"), str(root / "published"))
    return root / "published"


def test_a_published_adapter_makes_the_trained_model_of_its_base(root: Path, published: Path, tmp_path: Path) -> None:
    adapter.merge(str(root / "base"), str(published), tmp_path / "merged")
    torch.testing.assert_close(
        logits(model.load(tmp_path / "merged")), logits(model.load(root / "sft")), atol=1e-3, rtol=0
    )
    assert storage.size(str(published / artifact.WEIGHTS_FILE)) < 0.6 * storage.size(
        str(root / "sft" / artifact.FOLDER / artifact.WEIGHTS_FILE)
    )


def by_hand(base: Path, plain: Path) -> dict[str, torch.Tensor]:
    """The weights of `base` with an adapter's matrices added as LoRA's paper has it, without peft."""
    state = {name: weight.clone() for name, weight in model.load(base).state_dict().items()}
    weights = {name: weight.float() for name, weight in load_file(plain / artifact.WEIGHTS_FILE).items()}
    settings = storage.read_json(str(plain / artifact.SETTINGS_FILE))
    for name, weight in weights.items():
        layer, _, side = name.removeprefix("base_model.model.").partition(".lora_")
        if side == "embedding_A":
            product = (weights[name.replace("_A", "_B")] @ weight).T
        elif side == "A.weight":
            product = weights[name.replace("lora_A", "lora_B")] @ weight
        else:
            continue
        state[f"{layer}.weight"] += settings["lora_alpha"] / settings["r"] * product
    return state


@pytest.mark.parametrize("source", ["sft", "published"])
def test_for_vllm_matrices_alone_tell_the_whole_change(
    root: Path, published: Path, tmp_path: Path, source: str
) -> None:
    adapter.merge(str(root / "base"), str(published), tmp_path / "merged")
    adapter.publish(str(root / source), str(tmp_path / "plain"), adapter.VLLM, str(root / "base"))
    merged, plain = model.load(tmp_path / "merged").state_dict(), by_hand(root / "base", tmp_path / "plain")
    assert merged.keys() == plain.keys()
    for name, weight in merged.items():
        torch.testing.assert_close(plain[name], weight, rtol=0, atol=1e-5, msg=name)
    with pytest.raises(InputError, match="is not an adapter"):
        adapter.merge(str(root / "base"), str(tmp_path / "plain"), tmp_path / "again")
    assert "--max-lora-rank" in (tmp_path / "plain" / "README.md").read_text()


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(("rank", "alpha", "rows"), [(2, 2, 5), (8, 4, 3), (4, 16, 0)])
def test_rows_become_matrices_whatever_rank_and_scale(rank: int, alpha: int, rows: int, tied: bool) -> None:
    ids, before, after = [7, 1, 4, 0, 9][:rows], torch.randn(10, 6), torch.randn(rows, 6)
    a, b = torch.randn(rank, 6), torch.randn(3, rank)
    names = "base_model.model.model.layers.0.up_proj", "base_model.model.model.embed_tokens"
    weights = {f"{names[0]}.lora_A.weight": a, f"{names[0]}.lora_B.weight": b}
    settings: dict[str, Any] = {"r": rank, "lora_alpha": alpha, "target_modules": ["up_proj"]}
    if rows:
        weights[f"{names[1]}.token_adapter.trainable_tokens_delta"] = after
        settings[lora_matrices.ROWS] = {"embed_tokens": ids}
    plain, item = lora_matrices.convert(settings, weights, before, tied=tied)
    assert plain["lora_alpha"] == plain["r"] == max(rank, rows)
    up = item[f"{names[0]}.lora_B.weight"] @ item[f"{names[0]}.lora_A.weight"]
    torch.testing.assert_close(up, alpha / rank * b @ a)
    assert ("lm_head" in plain["target_modules"]) == (tied and rows > 0)
    if rows:
        expected = before.clone()
        expected[sorted(ids)] = after
        gain = item[f"{names[1]}.lora_embedding_B"] @ item[f"{names[1]}.lora_embedding_A"].float()
        torch.testing.assert_close(before + gain.T, expected)
    if rows and tied:
        head = "base_model.model.lm_head"
        gain = item[f"{head}.lora_B.weight"].float() @ item[f"{head}.lora_A.weight"]
        torch.testing.assert_close(before + gain, expected)


def test_vllms_form_needs_the_adapters_own_base(root: Path, published: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="name the base with --base-model"):
        adapter.publish(str(published), str(tmp_path / "plain"), adapter.VLLM)
    with pytest.raises(InputError, match="name its own base"):
        adapter.publish(str(published), str(tmp_path / "plain"), adapter.VLLM, tiny_model(tmp_path / "other", seed=1))
    assert not (tmp_path / "plain").exists()


def test_a_base_is_exported_whole(root: Path, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    base, folder = str(root / "base"), tmp_path / "a folder"
    answer = adapter.export_base(base, str(folder), adapter=str(published))
    artifact_of_base = manifest.load(str(folder))
    assert answer["bytes"] == sum(entry["bytes"] for entry in artifact_of_base.files.values())
    assert set(artifact_of_base.inputs) == {"base", "adapter"}
    manifest.verify(artifact_of_base)
    assert adapter.export_base(base, str(folder), adapter=str(published)) == answer
    with pytest.raises(InputError, match=r"already has another base artifact .*; choose another folder"):
        adapter.export_base(base, str(folder))
    torch.testing.assert_close(
        logits(model.load(folder)), logits(model.load(adapter.adapted(base, adapter=str(published))))
    )
    assert prompt.load_format(folder) == prompt.load_format(root / "base")


def test_nothing_of_an_adapter_tells_where_it_was_trained(root: Path, published: Path) -> None:
    for folder in (published, root / "sft" / artifact.FOLDER):
        for file in folder.iterdir():
            assert str(root).encode() not in file.read_bytes(), file


def test_an_adapted_base_is_made_once(
    root: Path, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    base = str(root / "base")
    folder = adapter.adapted(base, adapter=str(published))
    inode = (folder / "model.safetensors").stat().st_ino
    assert storage.read_json(str(folder / "card.json"))["adapter"]["sha256"] == adapter.digest(str(published))
    assert adapter.adapted(base, adapter=str(published)) == folder
    assert (folder / "model.safetensors").stat().st_ino == inode
    assert "adapter" not in card.of_base(str(adapter.adapted(base)))


def test_the_card_of_an_adapted_model_names_the_adapter(root: Path, published: Path, tmp_path: Path) -> None:
    adapter.merge(str(root / "base"), str(published), tmp_path / "merged")
    facts = storage.read_json(str(tmp_path / "merged" / "card.json"))
    assert facts["adapter"]["sha256"] == adapter.digest(str(published))
    assert [record["stage"] for record in facts["trainings"]] == ["sft"]


def test_an_adapter_for_another_base_is_refused(published: Path, tmp_path: Path) -> None:
    other = tiny_model(tmp_path / "other", seed=1)
    with pytest.raises(InputError, match=r"was trained on .*, not on .*; name its own base as base_model"):
        adapter.merge(other, str(published), tmp_path / "merged")


def test_an_adapter_for_other_infilling_tokens_is_refused(root: Path, published: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "base", tmp_path / "base")
    fmt = storage.read_json(str(tmp_path / "base" / prompt.FILE_NAME))
    fmt["fim_prefix"], fmt["fim_suffix"] = fmt["fim_suffix"], fmt["fim_prefix"]
    storage.write_json(str(tmp_path / "base" / prompt.FILE_NAME), fmt)
    with pytest.raises(InputError, match="other infilling tokens"):
        adapter.merge(str(tmp_path / "base"), str(published), tmp_path / "merged")


@pytest.mark.parametrize("name", [artifact.SETTINGS_FILE, artifact.WEIGHTS_FILE, artifact.BASE_FILE])
def test_a_damaged_adapter_is_refused_in_one_sentence(root: Path, published: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(published, tmp_path / "damaged")
    file = tmp_path / "damaged" / name
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(InputError, match=r"the adapter in .*damaged"):
        adapter.merge(str(root / "base"), str(tmp_path / "damaged"), tmp_path / "merged")
    file.unlink()
    with pytest.raises(InputError, match="is not an adapter"):
        adapter.merge(str(root / "base"), str(tmp_path / "damaged"), tmp_path / "merged")


def test_what_is_killed_continues_to_the_same_weights(
    root: Path, tmp_path: Path, preset: Preset, monkeypatch: pytest.MonkeyPatch
) -> None:
    from infill.train import watchdog

    calls = iter(range(100))
    with monkeypatch.context() as patch:
        patch.setattr(watchdog, "alive", lambda: None if next(calls) < 6 else (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run_stage("sft", preset.sft, str(root / "examples"), str(root / "base"), str(tmp_path / "sft"))
    for thread in threading.enumerate():
        if thread.name == "infill-checkpoint":
            thread.join()
    assert list((tmp_path / "sft" / "scratch" / "checkpoints").iterdir())
    run_stage("sft", preset.sft, str(root / "examples"), str(root / "base"), str(tmp_path / "sft"))
    assert (tmp_path / "sft" / "model.safetensors").read_bytes() == (root / "sft" / "model.safetensors").read_bytes()


def test_the_reference_of_dpo_is_the_model_with_the_adapter_off(root: Path, tmp_path: Path, preset: Preset) -> None:
    rows = read_holes(str(root / "examples"), "train", 12).to_pylist()
    names = ("id", "repo", "path", "language", "prefix", "suffix", "context")
    pairs = [
        {**{k: row[k] for k in names}, "chosen": row["middle"], "rejected": "pass", "rejected_finished": True}
        for row in rows
    ]
    table = pa.Table.from_pylist(pairs)
    stage(tmp_path / "pairs", lambda: storage.write_table(str(tmp_path / "pairs" / "pairs.parquet"), table))
    for name, rank in (("lora", 4), ("full", 0)):
        settings = replace(preset.dpo, train=replace(preset.dpo.train, lora_rank=rank))
        run_stage("dpo", settings, str(tmp_path / "pairs"), str(root / "sft"), str(tmp_path / name / "dpo"))
    sums = [next((tmp_path / name / dpo.REFERENCES).glob("*.parquet")) for name in ("lora", "full")]
    hit, expected = (storage.read_table(str(file)).to_pydict() for file in sums)
    for name in ("chosen", "rejected"):
        assert hit[name] == pytest.approx(expected[name], rel=1e-4)


def test_off_gives_back_the_base(root: Path, preset: Preset) -> None:
    decoder = model.load(root / "base")
    expected = logits(decoder)
    adapted = adapter.adapt(decoder, preset.sft.train, prompt.load_format(root / "base"))
    for weight in adapted.parameters():
        if weight.requires_grad:
            torch.nn.init.ones_(weight)
    assert not torch.allclose(logits(decoder), expected, atol=1e-3)
    with adapter.off(decoder):
        torch.testing.assert_close(logits(decoder), expected)
    assert not torch.allclose(logits(decoder), expected, atol=1e-3)


def test_an_unknown_module_is_refused(root: Path, preset: Preset) -> None:
    settings = replace(preset.sft.train, lora_modules=("q_proj", "query"))
    with pytest.raises(InputError, match="names query"):
        adapter.adapt(model.load(root / "base"), settings, prompt.load_format(root / "base"))


def test_a_model_from_scratch_has_nothing_to_adapt(root: Path, tmp_path: Path, preset: Preset) -> None:
    with pytest.raises(InputError, match="lora_rank needs a published base"):
        run_stage("pretrain", preset.pretrain, str(root / "corpus"), str(root / "base"), str(tmp_path / "model"))


def test_a_training_continues_from_an_adapter(root: Path, published: Path, preset: Preset, tmp_path: Path) -> None:
    """With a learning rate of nothing the result is the adapter from which it started."""
    train = replace(preset.sft.train, lora_start=str(published), learning_rate=1e-12, weight_decay=0.0, steps=2)
    more = replace(preset.sft, train=train)
    run_stage("sft", more, str(root / "examples"), str(root / "base"), str(tmp_path / "more"))
    torch.testing.assert_close(
        logits(model.load(tmp_path / "more")), logits(model.load(root / "sft")), atol=1e-3, rtol=0
    )
    assert storage.read_json(str(tmp_path / "more" / "manifest.json"))["inputs"]["lora_start"]
    assert len(storage.read_json(str(tmp_path / "more" / "card.json"))["trainings"]) == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lora_rank": 8}, "does not fit lora_rank 8"),
        ({"lora_modules": ("q_proj",)}, "adapts layers that lora_modules does not name"),
    ],
)
def test_an_adapter_of_another_shape_is_not_a_start(
    root: Path, published: Path, preset: Preset, settings: dict[str, Any], message: str
) -> None:
    train = replace(preset.sft.train, lora_start=str(published), **settings)
    with pytest.raises(InputError, match=message):
        adapter.adapt(model.load(root / "base"), train, prompt.load_format(root / "base"))


def test_a_start_for_another_base_is_refused(root: Path, published: Path, preset: Preset, tmp_path: Path) -> None:
    more = replace(preset.sft, train=replace(preset.sft.train, lora_start=str(published)))
    with pytest.raises(InputError, match="name its own base"):
        run_stage("sft", more, str(root / "examples"), tiny_model(tmp_path / "other", seed=1), str(tmp_path / "more"))
