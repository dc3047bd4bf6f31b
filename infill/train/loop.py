"""The training loop: next batch, objective, backward, step; at intervals log, validate, checkpoint.

Pre-training, SFT and DPO are this loop with three objectives. It runs in a plain process or in a worker of Ray Train;
only the engine differs.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, TypeVar

from torch import Tensor

from infill import inference, storage
from infill.config import TrainConfig
from infill.errors import InputError, StoppedError, TrainingError
from infill.train import checkpoint, cost, update
from infill.train.batch import Batch
from infill.train.checkpoint import Checkpoint
from infill.train.data import Loader, OpenLane, State
from infill.train.engine import Engine, precision
from infill.train.history import History, Row, with_margins
from infill.train.objectives import Objective
from infill.train.update import Bounds, UpdateOutcome

T = TypeVar("T")

log = logging.getLogger(__name__)

MEAN_OVER: Final = 50.0
"""Time constant, in steps, of the running means of loss and norm with which spikes are detected."""
LEAST_UPDATES: Final = 3
"""Number of updates before spikes are detected."""
TRIES: Final = 2
"""Number of times that a batch is tried before it is skipped."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """The task of a training: its objective, data, validation and samples."""

    objective: Objective
    open_lane: OpenLane
    validate: Callable[[Engine], Mapping[str, float]] = lambda _: {}
    """Metrics on held-out data; called by all workers."""
    complete: Callable[[Engine], Sequence[Mapping[str, Any]]] = lambda _: ()
    """The model's completions of a few fixed holes, to show progress; called by all workers."""
    identity: str = ""
    """Key of the training: a checkpoint with another one is refused."""


@dataclass
class Progress:
    """Counters that are part of a checkpoint."""

    step: int = 0
    """Number of batches, including skipped ones."""
    updates: int = 0
    tokens: int = 0
    """Number of positions that were not padding."""
    flops: float = 0.0
    """Floating-point operations, as `cost.step_flops` counts them."""
    mean_loss: float = 0.0
    """Running mean of the loss; 0 before the first update."""
    mean_norm: float = 0.0
    skipped: list[int] = field(default_factory=list)
    """Steps whose batch was skipped."""


def learning_rate(config: TrainConfig, step: int) -> float:
    """Return the rate after `step` batches: linear warm-up, constant, linear decay to zero (arXiv 2404.06395)."""
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
    """Train until step `config.steps`, from `resumed` on; write checkpoints and history to `output`.

    `alive` is called after every step. If `asked` returns true on any worker, all workers write a checkpoint and raise
    StoppedError. Raises TrainingError when more batches are skipped than the configuration allows, InputError when
    `resumed` belongs to another training.
    """
    progress, states = _restore(engine, work, resumed)
    history = History(output, progress.step, writes=engine.rank == 0)
    keep = checkpoint.rule(config)
    writer = checkpoint.CheckpointWriter(output, rank=engine.rank, world=engine.world, keep=keep, after=progress.step)
    loader = Loader(work.open_lane, config, rank=engine.rank, world=engine.world, states=states)
    meter = TrainingMeter(progress)
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
        raise StoppedError(f"the training stopped on request at step {progress.step}; run it again to continue")
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
    meter: "TrainingMeter",
    asked: bool,
) -> bool:
    """Take one step on `batches`, and update the counters; a batch that fails is retried, then skipped.

    Returns whether any worker was `asked` to stop. Raises TrainingError when too many batches were skipped.
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
    outcomes: list[UpdateOutcome] = []
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
            f"{outcomes[-1].why} at step {progress.step}, and steps {progress.skipped} were skipped; lower the "
            f"learning rate, or look at the batches in {storage.join(output, update.FOLDER)}"
        )
    return stop > 0


def _bounds(progress: Progress, config: TrainConfig) -> Bounds:
    """Return the bounds of loss and norm from their running means; infinite during the first updates."""
    if progress.updates < LEAST_UPDATES:
        return Bounds(float("inf"), float("inf"))
    return Bounds(progress.mean_loss + config.spike, progress.mean_norm * config.norm_spike)


def _count(outcome: UpdateOutcome, rate: float, progress: Progress, meter: "TrainingMeter") -> None:
    """Add an update to the counters."""
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


class TrainingMeter:
    """The figures of the next row of the history: means since the last row, and shares of the time."""

    def __init__(self, progress: Progress) -> None:
        self.started = self.row_started = time.monotonic()
        self.tokens, self.flops = progress.tokens, progress.flops
        self.means: dict[str, list[float | Tensor]] = {}
        self.own: dict[str, list[float | Tensor]] = {}
        """Like `means`, but only of this worker."""
        self.seconds: dict[str, float] = {}

    def add(self, name: str, total: float | Tensor, count: float | Tensor, *, over_workers: bool = False) -> None:
        """Add a sum of `count` values to the mean `name`; values of only this worker are summed `over_workers`."""
        kept = (self.own if over_workers else self.means).setdefault(name, [0.0, 0.0])
        kept[0] = kept[0] + total
        kept[1] = kept[1] + count

    def timed(self, name: str, call: Callable[[], T]) -> T:
        """Return the result of `call`, and log its time as a share of the whole."""
        started = time.monotonic()
        result = call()
        self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - started
        return result

    def row(self, engine: Engine, progress: Progress, config: TrainConfig, held_out: Mapping[str, float]) -> Row:
        """Return the row of this step, and start the next one; all workers must call this."""
        names = engine.union(list(self.own))
        own = engine.sum([float(value) for name in names for value in self.own.get(name, [0.0, 0.0])])
        sums: dict[str, list[float | Tensor]] = {name: [*own[2 * k : 2 * k + 2]] for k, name in enumerate(names)}
        totals = {**self.means, **with_margins(sums)}
        means = {name: float(total / count) for name, (total, count) in totals.items() if count}
        now = time.monotonic()
        lap = now - self.row_started
        trained = lap - self.seconds.get("validation", 0.0) - self.seconds.get("samples", 0.0)
        speed, name = (progress.flops - self.flops) / trained, inference.device_name(engine.device)
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
