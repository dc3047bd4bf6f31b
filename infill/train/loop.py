"""The training loop: next batch, objective, backward, step; every so often log, validate, checkpoint.

Pre-training, SFT and DPO are this loop with three objectives. It runs in a plain process or in a worker of Ray Train;
what differs between them is the engine.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, TypeVar

from torch import Tensor

from infill import storage
from infill.config import TrainConfig
from infill.errors import InputError, StoppedError, TrainingError
from infill.train import checkpoint, cost, update
from infill.train.batch import Batch
from infill.train.checkpoint import Checkpoint
from infill.train.data import Loader, OpenLane, State
from infill.train.engine import Engine, precision
from infill.train.history import History, Row, with_margins
from infill.train.objectives import Objective
from infill.train.update import Bounds, Outcome

T = TypeVar("T")

log = logging.getLogger(__name__)

MEAN_OVER: Final = 50.0
"""Steps over which the running means of loss and norm, against which a spike is judged, forget."""
LEAST_UPDATES: Final = 3
"""Before so many updates nothing is a spike."""
TRIES: Final = 2
"""Times that a batch is tried before it is given up."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What is trained, apart from how."""

    objective: Objective
    open_lane: OpenLane
    validate: Callable[[Engine], Mapping[str, float]] = lambda _: {}
    """Metrics on held-out data; called by all workers."""
    complete: Callable[[Engine], Sequence[Mapping[str, Any]]] = lambda _: ()
    """What the model writes into a few fixed holes, to be shown; called by all workers."""
    identity: str = ""
    """Digest of what the training is made of: a checkpoint of something else is refused."""


@dataclass
class Progress:
    """Counters that are part of a checkpoint."""

    step: int = 0
    """Batches taken, skipped ones included."""
    updates: int = 0
    tokens: int = 0
    """Positions that were not padding."""
    flops: float = 0.0
    """Floating-point operations, as `cost.step_flops` counts them."""
    mean_loss: float = 0.0
    """Running mean; 0 is none yet."""
    mean_norm: float = 0.0
    skipped: list[int] = field(default_factory=list)
    """Steps whose batch was given up."""


def learning_rate(config: TrainConfig, step: int) -> float:
    """Rate of the update after `step` batches: linear warm-up, constant, linear decay to zero (arXiv 2404.06395)."""
    warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
    decay_steps = max(1, round(config.steps * config.decay_share))
    return config.learning_rate * min(warm, (config.steps - step) / decay_steps, 1.0)


def train(
    engine: Engine,
    work: Work,
    config: TrainConfig,
    output: str,
    resumed: Checkpoint | None = None,
    alive: Callable[[], None] = lambda: None,
    asked: Callable[[], bool] = lambda: False,
) -> Progress:
    """Train for `config.steps` steps, or what is left of them after `resumed`; checkpoints and history go to `output`.

    `alive` is called after every step. Once `asked` says so on any worker, all of them end with a checkpoint.
    Raises StoppedError then, and TrainingError when batches are refused more often than the configuration allows.
    """
    progress, states = _restore(engine, work, resumed)
    history = History(output, progress.step, writes=engine.rank == 0)
    keep = checkpoint.rule(config)
    writer = checkpoint.Writer(output, rank=engine.rank, world=engine.world, keep=keep, after=progress.step)
    loader = Loader(work.open_lane, config, rank=engine.rank, world=engine.world, states=states)
    meter = Meter(progress)
    try:
        while progress.step < config.steps:
            batches, states = meter.timed("data_wait", loader.next)
            stop = _take(engine, work.objective, batches, config, output, progress, meter, asked())
            alive()
            last = progress.step == config.steps
            if config.sample_every and (last or progress.step % config.sample_every == 0):
                shown = meter.timed("samples", lambda: work.complete(engine))
                history.show(progress.step, progress.tokens, shown)
            save = last or progress.step % config.checkpoint_every == 0
            held_out: Mapping[str, float] = {}
            if save or progress.step % config.log_every == 0:
                held_out = meter.timed("validation", lambda: work.validate(engine)) if save else {}
                history.append(meter.row(engine, progress, config, held_out))
            if save or stop:
                history.flush()
                state = {**asdict(progress), "lanes": states, "identity": work.identity}
                score = held_out.get("bits_per_byte", held_out.get("validation_loss"))
                meter.timed("checkpoint", lambda: writer.save(progress.step, engine.tensors(), state, score))  # noqa: B023
            if stop and not last:
                break
        writer.wait()
    finally:
        loader.close()
        history.flush()
    if progress.step < config.steps:
        raise StoppedError(
            f"the training was asked to stop and did so at step {progress.step}; run it again to go on from there"
        )
    return progress


def _restore(engine: Engine, work: Work, resumed: Checkpoint | None) -> tuple[Progress, dict[str, State]]:
    if resumed is None:
        return Progress(), {}
    state = dict(resumed.state)
    if state.pop("identity") != work.identity:
        raise InputError("the checkpoint was written by another configuration; choose another output folder")
    states = state.pop("lanes")
    progress = Progress(**state)
    engine.load_moments(resumed.tensors, progress.updates)
    return progress, states


def _take(
    engine: Engine,
    objective: Objective,
    batches: Sequence[Batch],
    config: TrainConfig,
    output: str,
    progress: Progress,
    meter: "Meter",
    asked: bool,
) -> bool:
    """One step on `batches`: tried again if it fails, then given up; the counters follow.

    Returns whether any worker was `asked` to stop.
    """
    batches = [batch.to(engine.device) for batch in batches]
    own = [sum(b.weight for b in batches), sum(b.used for b in batches), sum(len(b.ids) for b in batches)]
    weight, used, positions, flops, stop = engine.sum([*own, cost.step_flops(engine.model, batches), float(asked)])
    rate = learning_rate(config, progress.step)
    bounds = _bounds(progress, config)
    progress.step += 1
    progress.tokens += int(used)
    progress.flops += flops
    meter.add("padding", positions - used, positions)
    outcomes: list[Outcome] = []
    while len(outcomes) < TRIES:
        outcome = update.attempt(engine, objective, batches, weight=weight, rate=rate, bounds=bounds)
        if not outcome.why:
            _count(outcome, rate, progress, meter)
            return stop > 0
        outcomes.append(outcome)
        about = {"learning_rate": rate, "mean_loss": progress.mean_loss, "mean_norm": progress.mean_norm}
        file = update.record(output, engine, progress.step, batches, outcomes, about)
        log.warning("step %d, try %d: %s; the batch is recorded in %s", progress.step, len(outcomes), outcome.why, file)
    progress.skipped.append(progress.step)
    if len(progress.skipped) > config.max_skipped:
        raise TrainingError(
            f"{outcomes[-1].why} at step {progress.step}, and steps {progress.skipped} were given up; lower the "
            f"learning rate, or look at the batches in {storage.join(output, update.FOLDER)}"
        )
    return stop > 0


def _bounds(progress: Progress, config: TrainConfig) -> Bounds:
    """How much loss and norm may be, after a few updates that tell what is usual."""
    if progress.updates < LEAST_UPDATES:
        return Bounds(float("inf"), float("inf"))
    return Bounds(progress.mean_loss + config.spike, progress.mean_norm * config.norm_spike)


def _count(outcome: Outcome, rate: float, progress: Progress, meter: "Meter") -> None:
    """Let the counters follow an update."""
    progress.updates += 1
    share = 1 / min(progress.updates, MEAN_OVER)
    progress.mean_loss += share * (outcome.loss - progress.mean_loss)
    progress.mean_norm += share * (outcome.norm - progress.mean_norm)
    meter.add("loss", outcome.loss, 1.0)
    meter.add("grad_norm", outcome.norm, 1.0)
    meter.add("lr", rate, 1.0)
    for result in outcome.results:
        for name, (part, count) in result.counts.items():
            meter.add(name, part, count, over_workers=True)


class Meter:
    """What is logged: means since the last row, and where the time went."""

    def __init__(self, progress: Progress) -> None:
        self.started = self.row_started = time.monotonic()
        self.tokens, self.flops = progress.tokens, progress.flops
        self.means: dict[str, list[float | Tensor]] = {}
        self.own: dict[str, list[float | Tensor]] = {}
        """As `means`, of this worker only."""
        self.seconds: dict[str, float] = {}

    def add(self, name: str, total: float | Tensor, count: float | Tensor, *, over_workers: bool = False) -> None:
        """Add a sum of `count` things to the mean `name`; what is this worker's alone is summed `over_workers`."""
        kept = (self.own if over_workers else self.means).setdefault(name, [0.0, 0.0])
        kept[0] = kept[0] + total
        kept[1] = kept[1] + count

    def timed(self, name: str, call: Callable[[], T]) -> T:
        """What `call` returns; its time is logged as a share of the whole."""
        started = time.monotonic()
        result = call()
        self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - started
        return result

    def row(self, engine: Engine, progress: Progress, config: TrainConfig, held_out: Mapping[str, float]) -> Row:
        """The row of this step; all workers must ask for it. Starts the next one."""
        names = engine.union(list(self.own))
        own = engine.sum([float(value) for name in names for value in self.own.get(name, [0.0, 0.0])])
        sums: dict[str, list[float | Tensor]] = {name: [*own[2 * k : 2 * k + 2]] for k, name in enumerate(names)}
        totals = {**self.means, **with_margins(sums)}
        means = {name: float(total / count) for name, (total, count) in totals.items() if count}
        now = time.monotonic()
        lap = now - self.row_started
        trained = lap - self.seconds.get("validation", 0.0) - self.seconds.get("samples", 0.0)
        speed, name = (progress.flops - self.flops) / trained, cost.device_name(engine.device)
        row = {
            "step": progress.step,
            "steps": config.steps,
            "tokens": progress.tokens,
            **means,
            **held_out,
            "skipped": len(progress.skipped),
            "flops": progress.flops,
            "tokens_per_s": round((progress.tokens - self.tokens) / trained, 1),
            **cost.utilisation(speed, name, engine.world, bf16=precision(config, engine.device).itemsize == 2),
            **cost.memory(engine.device),
            "device": name,
            "workers": engine.world,
            "seconds": round(now - self.started, 2),
            "lap_s": round(lap, 3),
            **{f"{name}_share": round(seconds / lap, 4) for name, seconds in self.seconds.items()},
        }
        self.row_started, self.tokens, self.flops = now, progress.tokens, progress.flops
        self.means, self.own, self.seconds = {}, {}, {}
        return row
