"""The pods of a preset's stages: their number, size and GPUs, and an estimate of GPU-hours.

The number of GPUs comes from `train.workers` of the preset's stage. The shapes of nodes are our assumption; an operator
whose nodes differ changes only this table.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from infill import model
from infill.cluster.stage_job import Group
from infill.config import Preset, TrainConfig
from infill.errors import InputError
from infill.stages.table import GPU_STAGES, MODELS, RAY_STAGES, STAGES, TRAINING_STAGES

PEAK: Final = 989e12
"""Dense bf16 FLOP/s of an H100 or H200 (NVIDIA's data sheets)."""
UTILISATION: Final = 0.35
"""Share of the peak that training reaches: an assumption, to be replaced by the tokens/s of your first run."""
GENERATION: Final = 0.05
"""Share of the peak that generation reaches, which is bound by memory: an assumption."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The sizes of a preset's pods."""

    head: Group
    """The pod that runs the driver; without other pods, also the work."""
    data: Group | None = None
    """Pods of stages that work on CPUs."""
    gpu: Group | None = None
    """A whole GPU node; `gpus` is the number of GPUs of one node, `replicas` is ignored."""


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
    """Return the head and the worker groups of a stage's RayJob.

    Raises InputError for a preset without a shape, a stage that does not run as a RayJob, or workers that do not fill
    whole nodes.
    """
    shape = SHAPES.get(preset.removesuffix("_gqa"))
    if shape is None:
        raise InputError(f"preset {preset!r} has no sizes of pods: add them to SHAPES in infill/stages/sizing.py")
    if stage not in RAY_STAGES:
        raise InputError(f"stage {stage!r} does not run as a RayJob: only {', '.join(RAY_STAGES)} do")
    if stage in GPU_STAGES and shape.gpu is not None:
        return shape.head, (_gpu_nodes(shape.gpu, gpus(preset, config, stage)),)
    return shape.head, (shape.data,) if shape.data is not None and stage == "corpus" else ()


def gpus(preset: str, config: Preset, stage: str) -> int:
    """Return the number of GPUs that the stage uses; 0 for a stage or a preset that works on CPUs."""
    shape = SHAPES.get(preset.removesuffix("_gqa"))
    if shape is None or shape.gpu is None or stage not in GPU_STAGES:
        return 0
    return trainer(config, stage).workers if stage in TRAINING_STAGES else 1


def driver_gpus(preset: str, config: Preset, stage: str) -> int:
    """Return the number of GPUs for the driver: those of a stage that generates; 0 for training, which has workers."""
    return 0 if stage in TRAINING_STAGES else gpus(preset, config, stage)


def on_ray(preset: str, stage: str) -> dict[str, object]:
    """Return the settings that make a stage use the pods from `groups`; they do not change the stage's result."""
    shape = SHAPES.get(preset.removesuffix("_gqa"))
    return {"corpus.runtime": "ray"} if stage == "corpus" and shape is not None and shape.data else {}


def trainer(config: Preset, stage: str) -> TrainConfig:
    """Return the training settings of a training stage."""
    train: TrainConfig = STAGES[stage].settings(config).train
    return train


def flops(config: Preset, stage: str) -> float:
    """Return the floating-point operations of a GPU stage, counted as in `infill.model`; 0 for an imported base."""
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
        sampling = config.preferences
        completions = sampling.holes * len(sampling.temperatures) * sampling.samples
        return forward * completions * (sampling.max_prompt_tokens + sampling.max_new_tokens)
    tokens = config.evaluate.holes * (config.evaluate.max_prompt_tokens + config.evaluate.max_new_tokens)
    return forward * len(MODELS) * tokens


def gpu_hours(preset: str, config: Preset) -> dict[str, float]:
    """Return an estimate of GPU-hours for each stage that uses GPUs; empty for a preset that works on CPUs.

    A base model is counted with the preset's own architecture; set yours in `pretrain.model.*`.
    """
    return {
        stage: flops(config, stage) / (PEAK * (UTILISATION if stage in TRAINING_STAGES else GENERATION)) / 3_600
        for stage in GPU_STAGES
        if gpus(preset, config, stage)
    }


def _gpu_nodes(node: Group, count: int) -> Group:
    """Return pods with `count` GPUs in total: whole nodes, or a part of one node."""
    if count >= node.gpus:
        if count % node.gpus:
            raise InputError(f"workers must be a multiple of the {node.gpus} GPUs of a node, got {count}")
        return Group(
            replicas=count // node.gpus,
            cpu=node.cpu,
            memory_gib=node.memory_gib,
            gpus=node.gpus,
            disk_gib=node.disk_gib,
        )
    share = node.gpus // count
    return Group(cpu=node.cpu // share, memory_gib=node.memory_gib // share, gpus=count, disk_gib=node.disk_gib)
