"""LoRA (arXiv 2106.09685) through `peft`: small matrices next to frozen weights, and the rows of the control tokens.

This is the only module that uses peft. The adapted decoder is the same object with its layers wrapped, so that code
that trains, scores and checkpoints a decoder works unchanged; checkpoints do not include frozen weights.
"""

import contextlib
import functools
import json
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialise

from infill import bases, manifest, model, prompt, storage
from infill.artifacts import adapter as artifact
from infill.artifacts.adapter import BASE_FILE, FOLDER, SETTINGS_FILE, WEIGHTS_FILE
from infill.config import ModelConfig, TrainConfig
from infill.errors import InputError
from infill.prompt import PromptFormat
from infill.text import read_text, split_lines
from infill.train import card, export, lora_matrices

if TYPE_CHECKING:
    from peft import PeftModel

PEFT: Final = "peft"
VLLM: Final = "vllm"
FORMS: Final = (PEFT, VLLM)
"""For whom an adapter is published."""
BASE: Final = "base"
"""The stage in the manifest of an exported base."""
BASE_VERSION: Final = 1


@dataclass(frozen=True, kw_only=True)
class ExportedBase:
    """The origin of an exported base."""

    base: str
    add_fim: bool
    adapter: str


def adapt(decoder: Any, config: TrainConfig, fmt: PromptFormat) -> "PeftModel":
    """Freeze `decoder`, wrap its layers, and return the adapted model; the same seed gives the same new weights.

    Raises InputError for a module that the decoder does not have.
    """
    from peft import LoraConfig, get_peft_model

    names = {name.rpartition(".")[2] for name, _ in decoder.named_modules()}
    if unknown := sorted(set(config.lora_modules) - names):
        raise InputError(f"lora_modules names {', '.join(unknown)}, which the model does not have")
    settings = LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha or config.lora_rank,
        target_modules=list(config.lora_modules),
        trainable_token_indices={"embed_tokens": sorted(fmt.stop_ids)} if config.lora_rows else None,
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]), _quiet_peft():
        torch.manual_seed(config.seed)
        adapted = get_peft_model(decoder, settings)
    if config.lora_start:
        _start(adapted, config)
    return adapted


@contextlib.contextmanager
def _quiet_peft() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)  # peft uses an old name
        yield


def started(config: TrainConfig) -> dict[str, str]:
    """Return the digest of the adapter from which a training continues, which it reads besides its inputs."""
    return {"lora_start": digest(config.lora_start)} if config.lora_start else {}


def trainings(config: TrainConfig) -> list[dict[str, Any]]:
    """Return the records of the trainings that made the adapter from which a training continues.

    They are in the card of a published adapter, or in that of the model folder that contains the adapter.
    """
    if not config.lora_start:
        return []
    for folder in (config.lora_start, storage.parent(config.lora_start)):
        if storage.exists(storage.join(folder, card.FACTS_FILE)):
            return list(card.of_base(folder)["trainings"])
    return []


def check_start(config: TrainConfig, base: str) -> None:
    """Raise InputError if the adapter from which a training continues belongs to another base."""
    if config.lora_start:
        _check_base(base, _fetch(config.lora_start), config.lora_start)


def _start(adapted: "PeftModel", config: TrainConfig) -> None:
    """Load the weights of the adapter `config.lora_start` into the new matrices and rows."""
    from peft import set_peft_model_state_dict

    folder = _fetch(config.lora_start)
    try:
        result: Any = set_peft_model_state_dict(adapted, load_file(folder / WEIGHTS_FILE))
        missing = result.unexpected_keys
    except (SafetensorError, RuntimeError, KeyError) as error:
        raise InputError(
            f"the adapter in {config.lora_start} does not fit lora_rank {config.lora_rank} and the chosen lora_modules "
            f"({split_lines(str(error))[-1].strip()}); set them to the values of its training"
        ) from error
    if missing:
        raise InputError(
            f"the adapter in {config.lora_start} adapts layers that lora_modules does not name: {missing[0]}"
        )


@contextlib.contextmanager
def off(decoder: Any) -> Iterator[None]:
    """Disable the adapter of a decoder in the block, so that it computes as its base: the reference of DPO."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    layers = [module for module in decoder.modules() if isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def save(adapted: "PeftModel", base: str, output: str) -> None:
    """Write the adapter below the model folder `output`, with a record of its base, the model folder `base`.

    peft would record the base's path on this machine; its name is recorded instead.
    """
    origin = describe(base)
    with tempfile.TemporaryDirectory() as name:
        adapted.save_pretrained(name)
        settings = Path(name) / SETTINGS_FILE
        corrected = json.loads(read_text(settings)) | {"base_model_name_or_path": origin["name"]}
        settings.write_text(json.dumps(corrected, indent=2) + "\n", encoding="utf-8")
        for path in sorted(Path(name).iterdir()):
            if path.name != "README.md":  # peft's template; the model folder has its own card
                storage.write_bytes(storage.join(output, FOLDER, path.name), path.read_bytes())
    storage.write_json(storage.join(output, FOLDER, BASE_FILE), origin)


def describe(base: str) -> dict[str, Any]:
    """Return the record that identifies an adapter's base, the model folder `base`: its weights and prompt format.

    A base that was converted from a GGUF file is identified by the digest of that file, since another processor may
    round converted weights differently.
    """
    facts = card.of_base(base)
    own = "base" in facts and "adapter" not in facts and not facts["trainings"]
    return {
        "name": facts["base"]["source"] if own else facts.get("source", ""),
        "weights_sha256": facts["base"]["sha256"] if own else card.weights_digest(base),
        "prompt_format": prompt.load_format(storage.fetch(base)).to_json(),
    }


def digest(adapter: str) -> str:
    """Return the SHA-256 of an adapter's weights and settings. Raise InputError for a folder without one."""
    return artifact.digest(str(_fetch(adapter)))


def adapted(base: str, *, add_fim: bool = False, adapter: str = "") -> Path:
    """Return the model folder of a published base, with `adapter`, if any, merged into it.

    The merged model is written once, to the user's cache. Raises InputError for a base or an adapter that cannot be
    used.
    """
    folder = bases.fetch(base, add_fim=add_fim)
    if converted := manifest.find(str(folder)):
        manifest.check(converted)
    if not adapter:
        return folder
    name = f"adapted-{storage.fingerprint(str(folder))[:24]}-{storage.fingerprint(adapter)[:24]}"
    return bases.once(name, functools.partial(merge, str(folder), adapter))


def export_base(base: str, target: str, *, add_fim: bool = False, adapter: str = "") -> dict[str, str | int]:
    """Write the model folder of a published base, with its adapter merged, to `target`; return its place and size.

    What it is made of goes along. It is a finished artifact, with the manifest of its own if `base` has one. Raise
    InputError for what cannot be used.
    """
    folder = adapted(base, add_fim=add_fim, adapter=adapter)
    model.load_config(folder)  # which tells what is not a model folder
    if own := manifest.find(str(folder)):
        manifest.check_free(target, own.key)
        storage.upload(folder, target)
    else:
        _export(folder, target, ExportedBase(base=base, add_fim=add_fim, adapter=adapter))
    return {"uri": target, "bytes": sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())}


def _export(folder: Path, target: str, config: ExportedBase) -> None:
    inputs = {"base": bases.fingerprint(config.base)}
    if config.adapter:
        inputs["adapter"] = digest(config.adapter)

    def upload() -> dict[str, float]:
        storage.upload(folder, target)
        return {}

    key = manifest.key(BASE, BASE_VERSION, config, inputs)
    manifest.once(stage=BASE, version=BASE_VERSION, key=key, config=config, inputs=inputs, output=target, body=upload)


def merge(base: str, adapter: str, target: Path) -> None:
    """Write the model folder `base` with an adapter merged into its weights to `target`, in single precision.

    Raises InputError when the adapter is missing or damaged, or was trained on another base.
    """
    from peft import PeftModel

    folder = _fetch(adapter)
    _check_base(base, folder, adapter)
    decoder = model.load(storage.fetch(base))
    try:
        with _quiet_peft():
            merged = PeftModel.from_pretrained(decoder, str(folder)).merge_and_unload()
    except (SafetensorError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"the adapter in {adapter} cannot be read ({error}); fetch or train it again") from error
    target.mkdir()
    export.save(merged, base, str(target), dtype=torch.float32)
    facts = card.of_base(base)
    own = card.of_base(str(folder))
    facts |= {
        "title": "Adapted base model",
        "about": "A published checkpoint with an adapter that Infill trained, merged into its weights.",
        "adapter": {"name": own.get("name", folder.name), "licence": own["licence"], "sha256": digest(adapter)},
        "trainings": [*facts["trainings"], *own["trainings"]],
    }
    storage.write_json(storage.join(str(target), card.FACTS_FILE), facts)


def publish(source: str, target: str, form: str = PEFT, base: str = "") -> dict[str, str | int]:
    """Write the adapter of `source` to `target` in half precision, with a card.

    `source` is a model folder that was trained with LoRA, or an adapter that was published before. What is written can
    be given to others: the matrices and rows that were trained, and nothing of the base. For vLLM, which knows matrices
    alone, the rows become such; what they gain over the rows of its `base` must then be known. Return place, digest and
    size in bytes. Raise InputError where there is no adapter, or another base.
    """
    alone = storage.exists(storage.join(source, SETTINGS_FILE))
    folder = _fetch(source if alone else storage.join(source, FOLDER))
    try:
        settings, origin = (json.loads(read_text(folder / name)) for name in (SETTINGS_FILE, BASE_FILE))
        weights = {name: weight.to(torch.float16) for name, weight in load_file(folder / WEIGHTS_FILE).items()}
    except (SafetensorError, ValueError) as error:
        raise InputError(f"the adapter in {source} is damaged ({error}); fetch or train it again") from error
    if form == VLLM:
        settings, weights = _as_matrices(folder, source, base, settings, weights)
        storage.write_json(storage.join(target, SETTINGS_FILE), settings)
    else:
        for name in (SETTINGS_FILE, BASE_FILE):
            storage.write_bytes(storage.join(target, name), (folder / name).read_bytes())
    storage.write_bytes(storage.join(target, WEIGHTS_FILE), serialise(weights, {"format": "pt"}))
    facts = {**card.of_base(source), "name": Path(target).name}
    storage.write_json(storage.join(target, card.FACTS_FILE), facts)
    text = card.of_adapter(facts, origin, artifact.digest(target), rank=settings["r"] if form == VLLM else 0)
    storage.write_bytes(storage.join(target, card.FILE_NAME), text.encode())
    return {"uri": target, "sha256": artifact.digest(target), "bytes": storage.size(storage.join(target, WEIGHTS_FILE))}


def _as_matrices(
    folder: Path, source: str, base: str, settings: dict[str, Any], weights: dict[str, torch.Tensor]
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Return settings and weights of the adapter in `folder` without rows, as a difference to its `base`."""
    if not base:
        raise InputError(
            f"vLLM needs the rows of {source} as a difference to its base; name the base with --base-model"
        )
    place = bases.fetch(base, add_fim=True)
    _check_base(str(place), folder, source)
    decoder = model.load(place)
    tied = bool(decoder.config.tie_word_embeddings)
    return lora_matrices.convert(settings, weights, decoder.get_input_embeddings().weight.detach(), tied=tied)


def _fetch(adapter: str) -> Path:
    folder = storage.fetch(adapter)
    missing = [name for name in (SETTINGS_FILE, WEIGHTS_FILE, BASE_FILE) if not (folder / name).is_file()]
    if missing:
        raise InputError(
            f"{adapter} is not an adapter: {missing[0]} is missing; name the folder `{FOLDER}` of a model that was "
            "trained with lora_rank"
        )
    return folder


def _check_base(base: str, folder: Path, adapter: str) -> None:
    try:
        trained_on = json.loads(read_text(folder / BASE_FILE))
        name, weights, fmt = (trained_on[key] for key in ("name", "weights_sha256", "prompt_format"))
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{BASE_FILE} of the adapter in {adapter} is damaged ({error}); fetch it again") from error
    described = describe(base)
    if described["weights_sha256"] != weights:
        raise InputError(
            f"the adapter in {adapter} was trained on {name or 'another base'} with the weights {weights[:12]}, not on "
            f"{described['name'] or base} with {described['weights_sha256'][:12]}; name its own base as base_model"
        )
    if described["prompt_format"] != fmt:
        raise InputError(
            f"the adapter in {adapter} was trained with other infilling tokens than those of {base}; "
            "set add_fim to its value in the adapter's training"
        )


def count(shape: ModelConfig, config: TrainConfig) -> int:
    """Return the number of weights that training with LoRA changes, without the rows of control tokens."""
    head = shape.width // shape.heads
    sides = {
        "q_proj": shape.width + shape.heads * head,
        "k_proj": shape.width + shape.kv_heads * head,
        "v_proj": shape.width + shape.kv_heads * head,
        "o_proj": shape.width + shape.heads * head,
        **dict.fromkeys(("gate_proj", "up_proj", "down_proj"), shape.width + shape.mlp_width),
    }
    return shape.layers * config.lora_rank * sum(sides.get(name, 0) for name in config.lora_modules)
