"""The training loop: next batch, objective, backward, step; every so often log, validate, checkpoint.

Pre-training, SFT and DPO are this loop with three objectives. It runs in a plain process or in a worker of Ray Train;
what differs between them is the engine.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

from infill.config import TrainConfig
from infill.errors import InputError, TrainingError
from infill.train import checkpoint
from infill.train.batch import Batch
from infill.train.checkpoint import Checkpoint
from infill.train.data import Loader, OpenLane, State
from infill.train.engine import Engine
from infill.train.history import History, Row
from infill.train.objectives import Objective

T = TypeVar("T")

MEAN_OVER: float = 50.0
"""Steps over which the running mean of the loss, against which a spike is judged, forgets."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What is trained, apart from how."""

    objective: Objective
    open_lane: OpenLane
    validate: Callable[[Engine], Mapping[str, float]] = lambda _: {}
    """Metrics on held-out data; called by all workers."""
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
    mean_loss: float = 0.0
    """Running mean; 0 is none yet."""
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
) -> Progress:
    """Train for `config.steps` steps, or what is left of them after `resumed`; checkpoints and history go to `output`.

    `alive` is called after every step.
    Raises TrainingError when the loss is no number, or spikes, more often than the configuration allows.
    """
    progress, states = _restore(engine, work, resumed)
    history = History(output, progress.step) if engine.rank == 0 else None
    writer = checkpoint.Writer(output, rank=engine.rank, world=engine.world, keep=config.keep_checkpoints)
    loader = Loader(work.open_lane, config, rank=engine.rank, world=engine.world, states=states)
    meter = Meter(progress.tokens)
    try:
        while progress.step < config.steps:
            batches, states = meter.timed("data_wait", loader.next)
            _take(engine, work.objective, batches, config, progress, meter)
            alive()
            save = progress.step % config.checkpoint_every == 0 or progress.step == config.steps
            if save or progress.step % config.log_every == 0:
                held_out = meter.timed("validation", lambda: work.validate(engine)) if save else {}
                row = meter.row(engine, progress, config, held_out)
                if history:
                    history.append(row)
            if save:
                state = {**asdict(progress), "lanes": states, "identity": work.identity}
                meter.timed("checkpoint", lambda: writer.save(progress.step, engine.tensors(), state))  # noqa: B023
        writer.wait()
    finally:
        loader.close()
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
    progress: Progress,
    meter: "Meter",
) -> None:
    """One step on `batches`: tried again if it fails, then given up; the counters follow."""
    batches = [batch.to(engine.device) for batch in batches]
    own = [sum(b.weight for b in batches), sum(b.used for b in batches), sum(len(b.ids) for b in batches)]
    weight, used, positions = engine.sum(own)
    rate = learning_rate(config, progress.step)
    limit = progress.mean_loss + config.spike if progress.updates else float("inf")
    progress.step += 1
    progress.tokens += int(used)
    meter.add("padding", positions - used, positions)
    for _ in range(2):
        loss = _attempt(engine, objective, batches, weight, rate, limit, meter)
        if loss is not None:
            progress.updates += 1
            share = 1 / min(progress.updates, MEAN_OVER)
            progress.mean_loss += share * (loss - progress.mean_loss)
            return
    progress.skipped.append(progress.step)
    if len(progress.skipped) > config.max_skipped:
        raise TrainingError(
            f"the loss was no number, or {config.spike:g} nats above its mean, at steps {progress.skipped}; "
            "lower the learning rate, or look at the data of these steps"
        )


def _attempt(
    engine: Engine,
    objective: Objective,
    batches: Sequence[Batch],
    weight: float,
    rate: float,
    limit: float,
    meter: "Meter",
) -> float | None:
    """One optimiser step; the mean loss, or None when the weights were left as they were."""
    results = []
    for batch in batches:
        result = objective(engine.score(batch), batch)
        results.append(result)
        if batch is batches[-1]:
            (total,) = engine.sum([float(torch.stack([r.loss.detach() for r in results]).sum())])
            if not total / weight <= limit:  # a spike, or no number
                engine.discard()
                return None
        engine.backward(result.loss * (engine.world / weight))
    norm = engine.step(rate)
    if not norm < float("inf"):
        return None
    loss = total / weight
    meter.add("loss", loss, 1.0)
    meter.add("grad_norm", norm, 1.0)
    meter.add("lr", rate, 1.0)
    for result in results:
        for name, (part, count) in result.counts.items():
            meter.add(name, part, count, over_workers=True)
    return loss


class Meter:
    """What is logged: means since the last row, and where the time went."""

    def __init__(self, tokens: int) -> None:
        self.started = self.row_started = time.monotonic()
        self.tokens = tokens
        self.means: dict[str, list[float | Tensor]] = {}
        self.own: dict[str, list[float | Tensor]] = {}
        """As `means`, of this worker only."""
        self.seconds: dict[str, float] = {}

    def add(self, name: str, total: float | Tensor, count: float, *, over_workers: bool = False) -> None:
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
        means = {name: float(total / count) for name, (total, count) in {**self.means, **sums}.items() if count}
        now = time.monotonic()
        lap = now - self.row_started
        rate = (progress.tokens - self.tokens) / (lap - self.seconds.get("validation", 0.0))
        row = {
            "step": progress.step,
            "steps": config.steps,
            "tokens": progress.tokens,
            **means,
            **held_out,
            "skipped": len(progress.skipped),
            "tokens_per_s": round(rate, 1),
            "seconds": round(now - self.started, 2),
            **{f"{name}_share": round(seconds / lap, 4) for name, seconds in self.seconds.items()},
        }
        self.row_started, self.tokens = now, progress.tokens
        self.means, self.own, self.seconds = {}, {}, {}
        return row
