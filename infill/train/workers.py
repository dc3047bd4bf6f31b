"""Training in Ray Train's workers, which are started, replaced when lost, and asked to stop when nodes leave.

This is the only module of `train` that uses Ray.
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
from infill.train import checkpoint, watchdog
from infill.train.training_job import TrainingJob, WorkerPlace, run
from infill.train.zero import DeepSpeedEngine

log = logging.getLogger(__name__)

PREEMPTED: Final = "the workers were asked to stop and left a checkpoint"
FOR_CLUSTERS: Final = ("DatasetsCallback", "PlacementGroupCleanerCallback")
"""Callbacks of Ray Train 2.60 that start an actor each: for data sets of Ray Data, and to clean up after a lost
controller (which on one machine ends with the job)."""
WORKER_ENVIRONMENT: Final = {
    "GOMP_SPINCOUNT": "1000",
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 34),
}
"""Settings of the workers' processes. A waiting thread must soon sleep: on shared cores, spinning costs a factor of
ten. Memory of a step is kept for the next: returning it to the system costs 8 % of a step on a CPU."""
RAY_SETTINGS: Final = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # 2 s by default, paid at the start and the end of every training
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


def fit(job: TrainingJob) -> None:
    """Train until the model folder `job.output` is complete.

    Raises TrainingError when the workers are lost more often than allowed between two checkpoints, and the InfillError
    of a worker.
    """
    for name, value in RAY_SETTINGS.items():
        os.environ.setdefault(name, value)
    from ray.exceptions import RayError
    from ray.train import TrainingFailedError

    losses, reached, why = 0, -1, ""
    while losses <= job.train.max_failures:
        storage.remove(storage.join(job.output, watchdog.HANG_FILE))
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
        f"the training workers were lost {losses} times without a new checkpoint (last reason: {why}); "
        "run the same command again to continue from the last checkpoint"
    )


def reason(error: Exception, output: str) -> str:
    """Return why the workers were lost, if starting them again may help.

    Otherwise raises the InfillError of a worker, or `error` for a defect.
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
    hang = storage.join(output, watchdog.HANG_FILE)
    if storage.exists(hang):
        return str(storage.read_json(hang)["message"])
    lines = [line.strip() for line in split_lines(str(error)) if line.strip()]
    return f"the workers were lost ({lines[-1][:500] if lines else type(error).__name__})"


def _trainer(job: TrainingJob) -> Any:
    """Return Ray's trainer of `job`, without Ray's restarts: `fit` restarts after any failure, even of Ray itself."""
    from ray.train.torch import TorchConfig
    from ray.train.v2.api.config import FailureConfig, RunConfig, ScalingConfig

    def worker(config: Mapping[str, Any]) -> None:
        """Run the job in a worker; pickled by value, so that Ray's controller does not load PyTorch."""
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
    """Return the callback that lets workers write a checkpoint, within `patience_s`, before they are stopped.

    Their main threads, which are Ray's, treat SIGTERM as a request to stop. If Ray resizes a working group, the group
    is asked to stop first; Ray would kill it.
    """
    from ray.train.v2._internal.execution.callback import ControllerCallback, WorkerGroupCallback

    def obey() -> None:
        from infill.train import watchdog

        watchdog.obey()

    def ask() -> None:
        from infill.train import watchdog

        watchdog.ask()

    class Farewell(WorkerGroupCallback, ControllerCallback):
        group: Any = None

        def after_worker_group_start(self, worker_group: Any) -> None:
            worker_group.execute(obey)
            self.group = worker_group

        def before_worker_group_shutdown(self, _worker_group: Any) -> None:
            self.group = None

        def before_controller_execute_resize_decision(self, _decision: Any) -> None:
            if self.group is None:  # the first group of a training
                return
            end = time.monotonic() + patience_s
            self.group.execute(ask)
            while time.monotonic() < end:
                status = self.group.poll_status(timeout=1)
                if status.finished or any(not isinstance(error, StoppedError) for error in status.errors.values()):
                    return  # finished, or a worker is lost and the others wait for it
                time.sleep(0.1)

    return Farewell()


def _trainer_class(alone: bool, patience_s: float) -> Any:
    """Return our subclass of Ray's trainer, for one machine (`alone`) or several."""
    from ray.train.torch import TorchTrainer
    from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy

    class NobodyAsked(FixedScalingPolicy):
        """A scaling policy that sends no requests to an autoscaler, since one machine cannot grow."""

        def after_controller_start(self, *_: Any) -> None:
            pass

        def _maybe_send_resource_request(self) -> None:
            pass

    class Trainer(TorchTrainer):
        """A trainer that, on one machine, leaves out actors with nothing to do: each takes seconds to start."""

        def _create_default_callbacks(self) -> list[Any]:
            callbacks = [*super()._create_default_callbacks(), _farewell(patience_s)]  # type: ignore[misc]
            return [callback for callback in callbacks if not (alone and type(callback).__name__ in FOR_CLUSTERS)]

        def _initialize_and_run_controller(self, **arguments: Any) -> Any:
            if alone:
                arguments["scaling_policy"] = NobodyAsked(self.scaling_config)  # type: ignore[arg-type]
            return super()._initialize_and_run_controller(**arguments)  # type: ignore[misc]

    return Trainer


def room(train: TrainConfig) -> tuple[int, int, bool]:
    """Return the number of nodes that stay in the cluster and of workers to start, and whether each has a GPU.

    Lost nodes are replaced within minutes, so a cluster of several nodes has `train.timeout_s` to make room for the
    minimum number of workers. Raises TrainingError when it does not.
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
    """Return the number of workers that can start with the cluster's `resources`, and whether each has a GPU.

    Raises TrainingError when the number is smaller than `train` allows.
    """
    kind = "GPU" if resources.get("GPU", 0) >= 1 else "CPU"
    count = resources.get(kind, 0)
    least = train.min_workers or train.workers
    if count < least:
        raise TrainingError(
            f"{least} workers need {least} {kind}s, but the Ray cluster has {count}; lower train.workers or "
            "train.min_workers"
        )
    return min(train.workers, count), kind == "GPU"


def _worker(job: TrainingJob) -> None:
    """Run the job on one worker of Ray Train."""
    import ray.train
    from ray.train.torch import get_device

    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    context = ray.train.get_context()
    device = get_device()
    if device.type == "cpu":
        torch.set_num_threads(max(1, machine.cores() // context.get_local_world_size()))
    # A folder of its own for what DeepSpeed compiles, so that no lock of a killed job blocks it.
    with tempfile.TemporaryDirectory(prefix="infill-extensions-", ignore_cleanup_errors=True) as extensions:
        os.environ["TORCH_EXTENSIONS_DIR"] = extensions
        sharing = 1 if device.type == "cuda" else context.get_local_world_size()
        place = WorkerPlace(context.get_world_rank(), context.get_world_size(), sharing)
        run(job, DeepSpeedEngine, device, place, _asked)


def _asked() -> bool:
    """Return whether this worker's node is being drained (Ray informs the worker), or the worker got SIGTERM."""
    from ray.train.v2._internal.execution.context import get_train_context

    return watchdog.asked() or get_train_context().preemption_context.preemption_info is not None
