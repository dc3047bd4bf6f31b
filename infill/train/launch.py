"""How a training is run: in this process, or by Ray Train's workers with DeepSpeed engines.

This is the only module of `train` that knows Ray and DeepSpeed. Resume does not depend on either: workers look for the
last whole checkpoint in the stage's output, whoever wrote it, and however many they were.
"""

import contextlib
import logging
import os
import pickle
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import torch
import torch.distributed
from torch import Tensor
from transformers import PretrainedConfig

from infill import manifest, storage
from infill.config import TrainConfig
from infill.errors import InfillError, ServiceError, StoppedError, TrainingError
from infill.train import checkpoint, export, history, loop, memory, watch
from infill.train.batch import Batch
from infill.train.engine import MOMENTS, Engine, PlainEngine, adamw, load_weights, precision
from infill.train.progress import following
from infill.train.scorer import Scorer, score

log = logging.getLogger(__name__)

OBJECT_STORE_BYTES: Final = 200_000_000
"""Ray's shared memory where we start it: training puts nothing there."""
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


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a worker needs to know; it travels pickled."""

    label: str
    train: TrainConfig
    output: str
    settings: Callable[[], PretrainedConfig]
    """The Hugging Face configuration of the model, from which the memory that it needs is estimated."""
    model: Callable[[], Any]
    """Makes the Hugging Face model that training starts from."""
    tokenizer: str
    """Folder with the tokenizer that goes into the model folder."""
    work: Callable[[Engine], loop.Work]


def fit(job: Job) -> dict[str, float]:
    """Train, or go on with it, until weights, tokenizer and configuration stand in `job.output`; return the metrics.

    Raises TrainingError when the workers fail more often than allowed, and what the loop raises.
    """
    with following(job.output, job.label):
        if job.train.launcher == "local":
            torch.set_num_threads(os.cpu_count() or 1)
            device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
            with watch.obedient():
                run(job, PlainEngine, device, Place())
        else:
            _fit_with_ray(job)
    return history.metrics(job.output)


class Place(NamedTuple):
    """Where a worker stands."""

    rank: int = 0
    workers: int = 1
    sharing: int = 1
    """Workers that share this one's device or machine."""


def run(
    job: Job,
    engine_of: Callable[[Any, TrainConfig, torch.device], Engine],
    device: torch.device,
    place: Place,
    asked: Callable[[], bool] = watch.asked,
) -> None:
    """A worker's life: memory, model, last checkpoint, engine, loop, export."""
    with watch.watched(job.train.timeout_s, job.output, place.rank):
        free = memory.available(device, place.sharing)
        memory.check(job.label, job.settings(), job.train, device, place.workers, free)
        model = without_dropout(job.model())
        resumed = checkpoint.latest(job.output)
        if resumed is not None:
            load_weights(model, resumed.tensors)
            log.info("%s goes on from step %d", job.label, resumed.step)
        engine = engine_of(model, job.train, device)
        found = resumed.step if resumed else 0
        if engine.sum([found])[0] != found * engine.world:
            raise TrainingError("the workers see different checkpoints; do all of them reach the same store?")
        watch.alive()
        loop.train(engine, job.work(engine), job.train, job.output, resumed, watch.alive, asked)
        if engine.rank == 0:
            export.save(engine.model, job.tokenizer, job.output, dtype=precision(job.train, engine.device))


def without_dropout(model: Any) -> Any:
    """`model` with every dropout rate at zero: published configurations differ, and a resumed run must be the same."""
    for module in model.modules():
        for name in ("p", "attention_dropout", "residual_dropout", "embedding_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    return model


def _fit_with_ray(job: Job) -> None:
    for name, value in RAY_SETTINGS.items():
        os.environ.setdefault(name, value)
    from ray.exceptions import RayError
    from ray.train import TrainingFailedError

    failures: list[str] = []
    while len(failures) <= job.train.max_failures:
        storage.remove(storage.join(job.output, watch.HANG_FILE))
        try:
            with cluster() as resources:
                _trainer(job, resources).fit()
            return
        except (TrainingFailedError, RayError) as error:
            why = reason(error, job.output)
            log.warning("%s: %s", job.label, why)
            if why != PREEMPTED:
                failures.append(why)
    raise TrainingError(
        f"the training workers were lost {len(failures)} times, at last with: {failures[-1]}; "
        "run the same command again to go on from the last checkpoint"
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
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"the workers were lost ({lines[-1][:500] if lines else type(error).__name__})"


def _trainer(job: Job, resources: Mapping[str, float]) -> Any:
    """Ray's trainer of `job`. Starting again after a failure is our affair: it must work after any death, Ray's too."""
    import ray
    from ray.train.torch import TorchConfig
    from ray.train.v2.api.config import FailureConfig, RunConfig, ScalingConfig

    def worker(config: Mapping[str, Any]) -> None:
        """Pickled by value, so that Ray's controller, which only passes it on, need not load PyTorch."""
        from infill.train import launch  # noqa: PLW0406 (in another process)

        launch._worker(pickle.loads(config["job"]))

    alone = len(ray.nodes()) == 1  # type: ignore[no-untyped-call]
    workers, on_gpu = possible(job.train, resources)
    output = os.path.abspath(storage.local_path(job.output)) if storage.is_local(job.output) else job.output
    if alone:
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    return _trainer_class(alone)(
        worker,
        train_loop_config={"job": pickle.dumps(job)},
        torch_config=TorchConfig(timeout_s=int(job.train.timeout_s)),
        scaling_config=ScalingConfig(
            num_workers=workers if alone or not job.train.min_workers else (job.train.min_workers, job.train.workers),
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


def _trainer_class(alone: bool) -> Any:
    """Ray's trainer as we use it, on one machine (`alone`) or on several."""
    from ray.train.torch import TorchTrainer
    from ray.train.v2._internal.execution.callback import WorkerGroupCallback
    from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy

    def obey() -> None:
        from infill.train import watch

        watch.obey()

    class Obey(WorkerGroupCallback):
        """Lets the main threads of the workers, which are Ray's, take SIGTERM for a request to stop."""

        def after_worker_group_start(self, worker_group: Any) -> None:
            worker_group.execute(obey)

    class NobodyAsked(FixedScalingPolicy):
        """Asks no autoscaler for what one machine has or has not."""

        def after_controller_start(self, *_: Any) -> None:
            pass

        def _maybe_send_resource_request(self) -> None:
            pass

    class Trainer(TorchTrainer):
        """On one machine without the actors that have nothing to do there: each takes seconds to start."""

        def _create_default_callbacks(self) -> list[Any]:
            made = [*super()._create_default_callbacks(), Obey()]  # type: ignore[misc]
            return [callback for callback in made if not (alone and type(callback).__name__ in FOR_CLUSTERS)]

        def _initialize_and_run_controller(self, **arguments: Any) -> Any:
            if alone:
                arguments["scaling_policy"] = NobodyAsked(self.scaling_config)  # type: ignore[arg-type]
            return super()._initialize_and_run_controller(**arguments)  # type: ignore[misc]

    return Trainer


def possible(train: TrainConfig, resources: Mapping[str, float]) -> tuple[int, bool]:
    """How many workers start with the cluster's `resources`, and whether each has a GPU.

    Raises TrainingError when they are fewer than `train` allows.
    """
    kind = "GPU" if resources.get("GPU", 0) >= 1 else "CPU"
    found = int(resources.get(kind, 0))
    least = train.min_workers or train.workers
    if found < least:
        raise TrainingError(
            f"{least} workers need as many {kind}s, the Ray cluster has {found}; lower train.workers or "
            "train.min_workers"
        )
    return min(train.workers, found), kind == "GPU"


@contextlib.contextmanager
def cluster() -> Iterator[Mapping[str, float]]:
    """The resources of a Ray cluster: that of RAY_ADDRESS, or one in this process, which ends with the block."""
    import ray

    mine = not ray.is_initialized()
    if mine and os.environ.get("RAY_ADDRESS"):
        try:
            ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False, logging_level=logging.WARNING)
        except ConnectionError as error:
            raise ServiceError(f"there is no Ray at RAY_ADDRESS={os.environ['RAY_ADDRESS']}; unset it") from error
    elif mine:
        ray.init(
            num_cpus=os.cpu_count(),
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.WARNING,
        )
    try:
        resources: Mapping[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        yield resources
    finally:
        if mine:
            ray.shutdown()


def _worker(job: Job) -> None:
    """What Ray Train runs on each worker."""
    import ray.train
    from ray.train.torch import get_device

    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    context = ray.train.get_context()
    device = get_device()
    if device.type == "cpu":
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // context.get_local_world_size()))
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


def load_deepspeed() -> Any:
    """The module, which is not imported at the top: in the driver it would be loaded for nothing (ray#50406).

    MLflow is kept from it: only its autotuner would use that, and it takes 4 of the 5 seconds.
    """
    hidden = {name: None for name in ("mlflow",) if name not in sys.modules}
    sys.modules.update(hidden)  # type: ignore[arg-type]
    try:
        import deepspeed
    finally:
        for name in hidden:
            del sys.modules[name]
    return deepspeed


class DeepSpeedEngine:
    """ZeRO stage 1: every worker has the weights, each keeps its share of the moments."""

    def __init__(self, model: Any, config: TrainConfig, device: torch.device) -> None:
        deepspeed = load_deepspeed()
        # A shared-memory all-reduce for inference on CPUs, compiled for 44 s at first use; training does not call it.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        self.device = device
        self.model = model.to(device)
        self.dtype = precision(config, device)
        self.names = [name for name, _ in model.named_parameters()]
        self.weights = [weight for _, weight in model.named_parameters()]
        self.engine, *_ = deepspeed.initialize(
            model=Scorer(self.model, recompute=config.recompute),
            optimizer=adamw(self.model, config),
            config={
                "train_micro_batch_size_per_gpu": 1,
                "managed_gradient_accumulation": False,
                "gradient_clipping": config.max_grad_norm,
                "zero_optimization": {"stage": 1},
                "torch_autocast": {
                    "enabled": self.dtype != torch.float32,
                    "dtype": str(self.dtype).removeprefix("torch."),
                },
            },
        )
        self._link_moments()
        self.norm, self.limit = 0.0, float("inf")
        self._judge_norms()
        self.rank: int = torch.distributed.get_rank()
        self.world: int = torch.distributed.get_world_size()

    def score(self, batch: Batch) -> Tensor:
        return score(self.engine, batch)

    def backward(self, loss: Tensor) -> None:
        self.engine.backward(loss, scale_wrt_gas=False)

    def step(self, learning_rate: float, limit: float = float("inf")) -> float:
        for group in self.engine.optimizer.param_groups:
            group["lr"] = learning_rate
        self.limit = limit
        self.engine.step()
        return self.norm

    def _judge_norms(self) -> None:
        """Let DeepSpeed skip an update whose norm is above the limit as it does one that is no number (-1 to it)."""
        zero = self.engine.optimizer
        norm_of = zero.scaled_global_norm

        def judged(norm_type: int = 2) -> Tensor:
            found: Tensor = norm_of(norm_type)
            self.norm = float(found) if float(found) >= 0 else float("nan")
            return found if self.norm <= self.limit else torch.full_like(found, -1.0)

        zero.scaled_global_norm = judged

    def discard(self) -> None:
        self.engine.zero_grad()

    def sum(self, values: Sequence[float]) -> list[float]:
        total = torch.tensor(list(values), dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(total)
        return [float(value) for value in total.tolist()]

    def union(self, names: Sequence[str]) -> list[str]:
        gathered: list[Any] = [None] * self.world
        torch.distributed.all_gather_object(gathered, list(names))
        return sorted({name for some in gathered for name in some})

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        for name, weight in zip(self.names, self.weights, strict=True):
            yield f"weight/{name}", safe_get_full_fp32_param(weight)
            for moment in MOMENTS:
                yield f"{moment}/{name}", safe_get_full_optimizer_state(weight, moment)

    def _link_moments(self) -> None:
        """Make the moments now: at the first step DeepSpeed 0.19 would link those of the first parameter group only."""
        zero = self.engine.optimizer
        for group in zero.optimizer.param_groups:
            for flat in group["params"]:  # this worker's share of all weights of the group, in one piece
                moments = {moment: torch.zeros_like(flat) for moment in MOMENTS}
                zero.optimizer.state[flat] = {"step": torch.tensor(0.0, device=self.device), **moments}
        zero._lazy_init_hp_params_optimizer_state()

    def load_moments(self, tensors: Mapping[str, Tensor], updates: int) -> None:
        from deepspeed.utils import safe_set_full_optimizer_state

        for state in self.engine.optimizer.optimizer.state.values():
            state["step"].fill_(float(updates))
        for name, weight in zip(self.names, self.weights, strict=True):
            for moment in MOMENTS:
                safe_set_full_optimizer_state(weight, tensors[f"{moment}/{name}"].to(self.device), moment)
