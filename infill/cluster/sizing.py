"""Pods for a stage of a preset: how many, how large, with how many GPUs, and for how many GPU-hours.

The number of GPUs is not decided here: it is `train.workers` of the preset's stage. The shapes of nodes are ours; an
operator whose nodes differ changes this table, nothing else.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from infill import model
from infill.cluster.job import Group
from infill.config import Preset, TrainConfig
from infill.errors import InputError

RAY_STAGES: Final = ("corpus", "pretrain", "sft", "dpo", "preferences", "evaluate")
"""Stages that outgrow one small pod; the others run in the pipeline's own step."""
GPU_STAGES: Final = ("pretrain", "sft", "dpo", "preferences", "evaluate")
TRAINING_STAGES: Final = ("pretrain", "sft", "dpo")
PEAK: Final = 989e12
"""Dense bf16 FLOP/s of an H100 or H200 (NVIDIA's data sheets)."""
UTILISATION: Final = 0.35
"""Share of the peak that training is taken to reach: an assumption, to be replaced by your first run's tokens/s."""
GENERATION: Final = 0.05
"""The same for generation, which waits for memory: an assumption."""
EVALUATIONS: Final = 3
"""Of the base model, after SFT, after DPO."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    head: Group
    """Runs the driver; alone, also the work."""
    data: Group | None = None
    """Pods for stages of CPU work."""
    gpu: Group | None = None
    """A whole GPU node; `replicas` is ignored, `gpus` is how many one node has."""


SHAPES: Final[Mapping[str, Shape]] = {
    "debug": Shape(head=Group(cpu=1, memory_gib=4, disk_gib=2)),
    "demo": Shape(head=Group(cpu=2, memory_gib=8, disk_gib=5)),
    "base": Shape(
        head=Group(cpu=4, memory_gib=16),
        gpu=Group(cpu=8, memory_gib=32, gpus=1, disk_gib=20),
    ),
    "small": Shape(
        head=Group(cpu=4, memory_gib=16),
        data=Group(replicas=4, cpu=8, memory_gib=32, disk_gib=50),
        gpu=Group(cpu=12, memory_gib=96, gpus=1, disk_gib=50),
    ),
    "mellum_4b": Shape(
        head=Group(cpu=16, memory_gib=64, disk_gib=50),
        data=Group(replicas=64, cpu=16, memory_gib=64, disk_gib=200),
        gpu=Group(cpu=96, memory_gib=1_024, gpus=8, disk_gib=400),
    ),
}


def groups(preset: str, config: Preset, stage: str) -> tuple[Group, tuple[Group, ...]]:
    """The head and the worker groups of a stage's RayJob.

    Raises InputError for a preset without a shape or a stage that does not run as a RayJob.
    """
    shape = SHAPES.get(preset.removesuffix("_gqa"))
    if shape is None:
        raise InputError(f"there is no shape of pods for preset {preset!r}: add one to infill/cluster/sizing.py")
    if stage not in RAY_STAGES:
        raise InputError(f"stage {stage!r} does not run as a RayJob: only {', '.join(RAY_STAGES)} do")
    if stage in GPU_STAGES and shape.gpu is not None:
        return shape.head, (_gpu_nodes(shape.gpu, gpus(preset, config, stage)),)
    return shape.head, (shape.data,) if shape.data is not None and stage == "corpus" else ()


def gpus(preset: str, config: Preset, stage: str) -> int:
    """GPUs that the stage uses; 0 for a stage or a preset of CPU work."""
    shape = SHAPES.get(preset.removesuffix("_gqa"))
    if shape is None or shape.gpu is None or stage not in GPU_STAGES:
        return 0
    return trainer(config, stage).workers if stage in TRAINING_STAGES else 1


def driver_gpus(preset: str, config: Preset, stage: str) -> int:
    """GPUs for the driver of a stage that generates: it does that itself, where trainings have workers."""
    return 0 if stage in TRAINING_STAGES else gpus(preset, config, stage)


def on_ray(preset: str, stage: str) -> dict[str, object]:
    """Settings that make a stage use the pods that `groups` gives it; none of them changes what the stage makes."""
    shape = SHAPES.get(preset.removesuffix("_gqa"))
    return {"corpus.runtime": "ray"} if stage == "corpus" and shape is not None and shape.data else {}


def trainer(config: Preset, stage: str) -> TrainConfig:
    """How a training stage trains."""
    return {"pretrain": config.pretrain.train, "sft": config.sft.train, "dpo": config.dpo.train}[stage]


def flops(config: Preset, stage: str) -> float:
    """Floating-point operations of a GPU stage, by the counts of `infill.model`; an imported base model costs none."""
    architecture, vocabulary = config.pretrain.model, config.tokenizer.vocab_size
    per_token = model.flops_per_token(architecture, vocabulary, architecture.context_length)
    if stage in TRAINING_STAGES:
        if stage == "pretrain" and config.pretrain.base_model and not config.pretrain.continued:
            return 0.0
        passes = 4 / 3 if stage == "dpo" else 1  # the reference's forward pass is a third of a step
        train = trainer(config, stage)
        return passes * per_token * train.steps * train.batch_tokens
    forward = per_token / 3
    if stage == "preferences":
        asked = config.preferences
        completions = asked.holes * len(asked.temperatures) * asked.samples
        return forward * completions * (asked.max_prompt_tokens + asked.max_new_tokens)
    asked_of_each = config.evaluate.holes * (config.evaluate.max_prompt_tokens + config.evaluate.max_new_tokens)
    return forward * EVALUATIONS * asked_of_each


def gpu_hours(preset: str, config: Preset) -> dict[str, float]:
    """An estimate for each stage that uses GPUs; empty for a preset of CPU work.

    A base model is counted as one of the preset's own architecture: name yours by `pretrain.model.*`.
    """
    return {
        stage: flops(config, stage) / (PEAK * (UTILISATION if stage in TRAINING_STAGES else GENERATION)) / 3_600
        for stage in GPU_STAGES
        if gpus(preset, config, stage)
    }


def _gpu_nodes(node: Group, wanted: int) -> Group:
    """Pods with `wanted` GPUs in all: whole nodes, or the part of one that suffices."""
    if wanted >= node.gpus:
        if wanted % node.gpus:
            raise InputError(f"{wanted} workers do not fill nodes of {node.gpus} GPUs: choose a multiple")
        return Group(
            replicas=wanted // node.gpus,
            cpu=node.cpu,
            memory_gib=node.memory_gib,
            gpus=node.gpus,
            disk_gib=node.disk_gib,
        )
    share = node.gpus // wanted
    return Group(cpu=node.cpu // share, memory_gib=node.memory_gib // share, gpus=wanted, disk_gib=node.disk_gib)
