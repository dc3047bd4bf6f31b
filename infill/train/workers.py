"""Training by Ray Train's workers: they are started, replaced when they are lost, and asked to go when nodes go.

This is the only module of `train` that knows Ray.
"""

import logging
import os
import pickle
import tempfile
import time
from collections.abc import Mapping
from typing import Any, Final

import torch

from infill import machine, manifest, ray_session, storage
from infill.config import TrainConfig
from infill.errors import InfillError, StoppedError, TrainingError
from infill.text import split_lines
from infill.train import checkpoint, watch
from infill.train.job import Job, Place, run
from infill.train.zero import DeepSpeedEngine

log = logging.getLogger(__name__)

PREEMPTED: Final = "the workers were asked to stop and left a checkpoint"
FOR_CLUSTERS: Final = ("DatasetsCallback", "PlacementGroupCleanerCallback")
"""Callbacks of Ray Train 2.60 that start an actor each: data sets through Ray Data, and what a lost controller leaves
behind (on one machine that is freed with the job)."""
WORKER_ENVIRONMENT: Final = {
    "GOMP_SPINCOUNT": "1000",
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 34),
}
"""A thread that waits must soon sleep: on cores that something else uses too, spinning costs a factor of ten.
And memory that a step has used stays for the next: handing it back to the system costs 8 % of a step on a CPU."""
RAY_SETTINGS: Final = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # 2 s by default, paid at the start and the end of every training
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


def fit(job: Job) -> None:
    """Train until the weights stand in `job.output`.

    Raises TrainingError when the workers fail more often than allowed between two checkpoints, and what one raised.
    """
    for name, value in RAY_SETTINGS.items():
        os.environ.setdefault(name, value)
    from ray.exceptions import RayError
    from ray.train import TrainingFailedError

    losses, reached, why = 0, -1, ""
    while losses <= job.train.max_failures:
        storage.remove(storage.join(job.output, watch.HANG_FILE))
        try:
            with ray_session.session():
                _trainer(job).fit()
            return
        except (TrainingFailedError, RayError) as error:
            why = reason(error, job.output)
            log.warning("%s: %s", job.label, why)
            if why != PREEMPTED:
                step = max(checkpoint.steps(storage.join(job.output, checkpoint.FOLDER)), default=0)
                losses, reached = (losses + 1, reached) if step <= reached else (1, step)
    raise TrainingError(
        f"the training workers were lost {losses} times without a new checkpoint, at last with: {why}; "
        "run the same command again to go on from the last one"
    )


def reason(error: Exception, output: str) -> str:
    """Why the workers are gone, when starting them again may help.

    Raises what a worker raised where it would raise it again: an InfillError, or `error` for a defect.
    """
    from ray.exceptions import RayError
    from ray.train.v2._internal.exceptions import RayTrainError

    causes: list[Exception] = list(getattr(error, "worker_failures", {}).values())
    if any(isinstance(cause, StoppedError) for cause in causes):
        return PREEMPTED
    for cause in causes:
        if isinstance(cause, InfillError):
            raise cause from error
    lost = [isinstance(cause, RayError | RayTrainError) or "onnection" in str(cause) for cause in causes]
    if causes and not any(lost):  # neither the worker nor one of its peers was lost
        raise error
    hang = storage.join(output, watch.HANG_FILE)
    if storage.exists(hang):
        return str(storage.read_json(hang)["message"])
    lines = [line.strip() for line in split_lines(str(error)) if line.strip()]
    return f"the workers were lost ({lines[-1][:500] if lines else type(error).__name__})"


def _trainer(job: Job) -> Any:
    """Ray's trainer of `job`. Starting again after a failure is our affair: it must work after any death, Ray's too."""
    from ray.train.torch import TorchConfig
    from ray.train.v2.api.config import FailureConfig, RunConfig, ScalingConfig

    def worker(config: Mapping[str, Any]) -> None:
        """Pickled by value, so that Ray's controller, which only passes it on, need not load PyTorch."""
        from infill.train import workers  # noqa: PLW0406 (in another process)

        workers._worker(pickle.loads(config["job"]))

    nodes, workers, on_gpu = room(job.train)
    alone = nodes == 1 and not job.train.min_workers
    output = os.path.abspath(storage.local_path(job.output)) if storage.is_local(job.output) else job.output
    os.environ["RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"] = str(int(not alone))
    return _trainer_class(alone, job.train.timeout_s)(
        worker,
        train_loop_config={"job": pickle.dumps(job)},
        torch_config=TorchConfig(timeout_s=int(job.train.timeout_s)),
        scaling_config=ScalingConfig(
            num_workers=(job.train.min_workers, job.train.workers) if job.train.min_workers else workers,
            use_gpu=on_gpu,
            resources_per_worker={"CPU": 1},
        ),
        run_config=RunConfig(
            name="ray",
            storage_path=storage.join(output, manifest.SCRATCH),
            failure_config=FailureConfig(max_failures=0),
            worker_runtime_env={"env_vars": WORKER_ENVIRONMENT},
        ),
    )


def _farewell(patience_s: float) -> Any:
    """What lets workers leave a checkpoint when they are to go; they have `patience_s` for it.

    Their main threads, which are Ray's, take SIGTERM for a request to stop. And a group that Ray ends while it works,
    because there is room for another number of workers, is asked first: Ray itself would kill it.
    """
    from ray.train.v2._internal.execution.callback import ControllerCallback, WorkerGroupCallback

    def obey() -> None:
        from infill.train import watch

        watch.obey()

    def ask() -> None:
        from infill.train import watch

        watch.ask()

    class Farewell(WorkerGroupCallback, ControllerCallback):
        group: Any = None

        def after_worker_group_start(self, worker_group: Any) -> None:
            worker_group.execute(obey)
            self.group = worker_group

        def before_worker_group_shutdown(self, _worker_group: Any) -> None:
            self.group = None

        def before_controller_execute_resize_decision(self, _decision: Any) -> None:
            if self.group is None:  # the first of a training
                return
            end = time.monotonic() + patience_s
            self.group.execute(ask)
            while time.monotonic() < end:
                status = self.group.poll_status(timeout=1)
                if status.finished or any(not isinstance(error, StoppedError) for error in status.errors.values()):
                    return  # or a worker is lost, and the others wait for it
                time.sleep(0.1)

    return Farewell()


def _trainer_class(alone: bool, patience_s: float) -> Any:
    """Ray's trainer as we use it, on one machine (`alone`) or on several."""
    from ray.train.torch import TorchTrainer
    from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy

    class NobodyAsked(FixedScalingPolicy):
        """Asks no autoscaler for what one machine has or has not."""

        def after_controller_start(self, *_: Any) -> None:
            pass

        def _maybe_send_resource_request(self) -> None:
            pass

    class Trainer(TorchTrainer):
        """On one machine without the actors that have nothing to do there: each takes seconds to start."""

        def _create_default_callbacks(self) -> list[Any]:
            made = [*super()._create_default_callbacks(), _farewell(patience_s)]  # type: ignore[misc]
            return [callback for callback in made if not (alone and type(callback).__name__ in FOR_CLUSTERS)]

        def _initialize_and_run_controller(self, **arguments: Any) -> Any:
            if alone:
                arguments["scaling_policy"] = NobodyAsked(self.scaling_config)  # type: ignore[arg-type]
            return super()._initialize_and_run_controller(**arguments)  # type: ignore[misc]

    return Trainer


def room(train: TrainConfig) -> tuple[int, int, bool]:
    """Nodes of the cluster that stay, how many workers start on them, and whether each has a GPU.

    Lost nodes are replaced in minutes, so a cluster of several is given `train.timeout_s` to have room for the least
    number of workers. Raises TrainingError when it has not.
    """
    import ray
    from ray._private.state import state

    end = time.monotonic() + train.timeout_s
    while True:
        known = ray.nodes()  # type: ignore[no-untyped-call]
        leaving = state.get_draining_nodes()
        nodes = [node["Resources"] for node in known if node["Alive"] and node["NodeID"] not in leaving]
        resources = {kind: sum(int(node.get(kind, 0)) for node in nodes) for kind in ("CPU", "GPU")}
        try:
            return len(nodes), *possible(train, resources)
        except TrainingError as error:
            if len(known) == 1 or time.monotonic() >= end:
                raise
            log.info("waiting for nodes: %s", error)
        time.sleep(2)


def possible(train: TrainConfig, resources: Mapping[str, int]) -> tuple[int, bool]:
    """How many workers start with the cluster's `resources`, and whether each has a GPU.

    Raises TrainingError when they are fewer than `train` allows.
    """
    kind = "GPU" if resources.get("GPU", 0) >= 1 else "CPU"
    found = resources.get(kind, 0)
    least = train.min_workers or train.workers
    if found < least:
        raise TrainingError(
            f"{least} workers need as many {kind}s, the Ray cluster has {found}; lower train.workers or "
            "train.min_workers"
        )
    return min(train.workers, found), kind == "GPU"


def _worker(job: Job) -> None:
    """What Ray Train runs on each worker."""
    import ray.train
    from ray.train.torch import get_device

    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    context = ray.train.get_context()
    device = get_device()
    if device.type == "cpu":
        torch.set_num_threads(max(1, machine.cores() // context.get_local_world_size()))
    # Whatever DeepSpeed compiles goes where no other job waits on a lock that a killed one has left.
    with tempfile.TemporaryDirectory(prefix="infill-extensions-", ignore_cleanup_errors=True) as extensions:
        os.environ["TORCH_EXTENSIONS_DIR"] = extensions
        sharing = 1 if device.type == "cuda" else context.get_local_world_size()
        place = Place(context.get_world_rank(), context.get_world_size(), sharing)
        run(job, DeepSpeedEngine, device, place, _asked)


def _asked() -> bool:
    """Whether this worker's node is being drained (Ray tells the worker), or the worker got SIGTERM."""
    from ray.train.v2._internal.execution.context import get_train_context

    return watch.asked() or get_train_context().preemption_context.preemption_info is not None
