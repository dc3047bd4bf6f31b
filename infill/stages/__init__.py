"""Stages: the contract, the table, the runner, and the ways to run a stage (in a step of the pipeline, as a RayJob).

To add a stage, see docs/how-to/add-a-stage.md.
"""

from infill.stages.contract import RUN, Call, Stage, Where
from infill.stages.runner import address, call_of, execute
from infill.stages.table import COMMANDS, GPU_STAGES, MODELS, RAY_STAGES, STAGES, TRAINING_STAGES

__all__ = [
    "COMMANDS",
    "GPU_STAGES",
    "MODELS",
    "RAY_STAGES",
    "RUN",
    "STAGES",
    "TRAINING_STAGES",
    "Call",
    "Stage",
    "Where",
    "address",
    "call_of",
    "execute",
]
