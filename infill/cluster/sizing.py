"""Pods for a stage of a preset: how many, how large, with how many GPUs.

The number of GPUs is not decided here: it is `train.workers` of the preset's stage. The shapes of nodes are ours; an
operator whose nodes differ changes this table, nothing else.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from infill.cluster.job import Group
from infill.config import Preset
from infill.errors import InputError

RAY_STAGES: Final = ("corpus", "pretrain", "sft", "dpo", "preferences", "evaluate")
"""Stages that outgrow one small pod; the others run in the pipeline's own step."""
GPU_STAGES: Final = ("pretrain", "sft", "dpo", "preferences", "evaluate")


@dataclass(frozen=True, kw_only=True)
class Shape:
    head: Group
    """Runs the driver; alone, also the work."""
    data: Group | None = None
    """Pods for stages of CPU work."""
    gpu: Group | None = None
    """A whole GPU node; `replicas` is ignored, `gpus` is how many one node has."""
    generation_gpus: int = 1
    """GPUs for stages that only generate."""


SHAPES: Final[Mapping[str, Shape]] = {
    "debug": Shape(head=Group(cpu=1, memory_gib=4, disk_gib=2)),
    "demo": Shape(head=Group(cpu=2, memory_gib=8, disk_gib=5)),
    "small": Shape(
        head=Group(cpu=4, memory_gib=16),
        data=Group(replicas=4, cpu=8, memory_gib=32, disk_gib=50),
        gpu=Group(cpu=12, memory_gib=96, gpus=1, disk_gib=50),
    ),
    "mellum_4b": Shape(
        head=Group(cpu=16, memory_gib=64, disk_gib=50),
        data=Group(replicas=64, cpu=16, memory_gib=64, disk_gib=200),
        gpu=Group(cpu=96, memory_gib=1_024, gpus=8, disk_gib=400),
        generation_gpus=8,
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
    shape = SHAPES[preset.removesuffix("_gqa")]
    if shape.gpu is None or stage not in GPU_STAGES:
        return 0
    trains = {"pretrain": config.pretrain.train, "sft": config.sft.train, "dpo": config.dpo.train}
    return trains[stage].workers if stage in trains else shape.generation_gpus


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
