"""Settings of jobs on this cluster, which the chart infill-platform puts into the variable INFILL_CLUSTER as JSON.

Steps of a pipeline run their stages as RayJobs if the variable is set, else in their own process.
"""

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from infill.cluster.stage_job import Group, Placement, StageJob
from infill.errors import InputError

VARIABLE: Final = "INFILL_CLUSTER"
POLICIES: Final = ("delete", "suspend", "leave")
"""Actions on a step's RayJob when the step receives SIGTERM."""


@dataclass(frozen=True, kw_only=True)
class JobSettings:
    """The settings in INFILL_CLUSTER."""

    image: str
    """The image of the stages, with its digest."""
    pull_secrets: tuple[str, ...] = ()
    service_account: str = "infill-stage"
    secrets: tuple[str, ...] = ()
    config_maps: tuple[str, ...] = ()
    node_selector: Mapping[str, str] = dataclasses.field(default_factory=dict)
    gpu_node_selector: Mapping[str, str] = dataclasses.field(default_factory=dict)
    tolerations: tuple[Mapping[str, str], ...] = ()
    claims: Mapping[str, str] = dataclasses.field(default_factory=dict)
    gpu_resource: str = "nvidia.com/gpu"
    priority_class: str = ""
    workload_priority: str = ""
    queue: str = ""
    pre_running_deadline: int = StageJob.pre_running_deadline
    active_deadline: int = StageJob.active_deadline
    retries: int = StageJob.retries
    on_stop: str = "delete"

    def __post_init__(self) -> None:
        if "@sha256:" not in self.image:
            raise ValueError(f"image must have a digest, got {self.image!r}")
        if self.on_stop not in POLICIES:
            raise ValueError(f"unknown on_stop {self.on_stop!r}; choose one of {', '.join(POLICIES)}")

    def job(
        self,
        *,
        run: str,
        stage: str,
        config_hash: str,
        entrypoint: tuple[str, ...],
        env: Mapping[str, str],
        groups: tuple[Group, tuple[Group, ...]],
        driver_gpus: int = 0,
        owner: Mapping[str, Any] | None = None,
    ) -> StageJob:
        """Return a job with these settings; `groups` holds the head and the workers (see `sizing.groups`)."""
        shared = {field.name for field in dataclasses.fields(Placement)} & {*vars(self)}
        return StageJob(
            run=run,
            stage=stage,
            config_hash=config_hash,
            entrypoint=entrypoint,
            placement=Placement(env=env, **{name: getattr(self, name) for name in shared}),
            head=groups[0],
            workers=groups[1],
            driver_gpus=driver_gpus,
            pre_running_deadline=self.pre_running_deadline,
            active_deadline=self.active_deadline,
            retries=self.retries,
            queue=self.queue,
            workload_priority=self.workload_priority,
            owner=owner,
        )


def read(environment: Mapping[str, str] = os.environ) -> JobSettings | None:
    """Return the settings in the environment; None if stages run in the step's own process.

    Raises InputError for invalid JSON, unknown settings or invalid values.
    """
    text = environment.get(VARIABLE, "")
    if not text:
        return None
    try:
        values = json.loads(text)
        known = {field.name for field in dataclasses.fields(JobSettings)}
        if not isinstance(values, dict) or set(values) - known:
            raise ValueError(f"it is not an object with only {', '.join(sorted(known))}")
        lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        return JobSettings(**{**values, **lists})
    except (TypeError, ValueError) as error:
        raise InputError(f"{VARIABLE} cannot be used ({error}): install charts/infill-platform again") from error
