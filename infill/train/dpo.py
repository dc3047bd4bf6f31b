"""The DPO stage: prefer the chosen completion over the rejected one, without straying far from the SFT model.

The reference's log-probabilities are computed once, before the first step, and reused by all runs on the same pairs.
"""

import contextlib
import functools
import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import pyarrow as pa
import torch

from infill import model, prompt, storage
from infill.artifacts.examples import request_of
from infill.artifacts.preferences import pairs_file
from infill.config import DpoConfig, TrainConfig
from infill.context import packing
from infill.errors import InputError
from infill.stages.contract import Call
from infill.train import adapter, card, export, history, loop, objectives, samples, trainer, watchdog
from infill.train.batch import Item, pack, pair_item
from infill.train.data import ItemLane, Order, State, rows_of
from infill.train.engine import Engine, precision
from infill.train.scorer import Scorer, score
from infill.train.sft import LEAST_PROMPT, room, settings_of
from infill.train.shuffled_rows import Rows
from infill.train.training_job import TrainingJob, without_dropout

log = logging.getLogger(__name__)

VERSION: Final = 3
REFERENCES: Final = "references"
"""Folder next to the stage's outputs with the reference's log-probabilities."""
NAMES: Final = ("pair", "chosen", "rejected")


def body(call: Call[DpoConfig]) -> Mapping[str, float]:
    """Train the SFT model on the pairs of preferences, write a model folder; return the metrics.

    `accuracy` is the share of pairs whose chosen completion gained more than the rejected one, `margin` the mean
    difference. Raises InputError when there are no pairs.
    """
    config, sft, output = call.settings, call.inputs["model"], call.output
    if not export.finished(output):
        job = TrainingJob(
            label="dpo",
            train=config.train,
            output=output,
            settings=functools.partial(settings_of, storage.fetch(sft)),
            model=functools.partial(model.load, storage.fetch(sft)),
            tokenizer=sft,
            work=functools.partial(_work, call),
        )
        trainer.fit(job)
        card.write(
            output,
            card.trained(card.of_base(sft), call.stage, output, call.digests),
            title="Infill completion model, preference-tuned",
            about="Fine-tuned by Infill to fill syntactic holes, then by direct preference optimisation.",
        )
    return history.metrics(output)


def _work(call: Call[DpoConfig], engine: Engine) -> loop.Work:
    config, preferences, sft = call.settings, call.inputs["preferences"], call.inputs["model"]
    tokens, lanes = config.train.micro_batch_tokens, config.train.batch_tokens // config.train.micro_batch_tokens
    rows, folder = Rows(pairs_file(preferences)), storage.fetch(sft)
    context = room(engine, tokens)
    pairs = Pairs(rows, folder, context=context, budget=config.max_prompt_tokens, tokens=tokens)
    digests = call.digests["model"], call.digests["preferences"]
    pairs.numbers = reference(
        engine, pairs, folder, reference_file(call.output, pairs, digests, config, engine), config.train
    )
    if not pairs.numbers:
        raise InputError(f"{preferences} has no pair that fits a context of {context} tokens; sample more holes")

    def open_lane(lane: int, state: State | None) -> ItemLane:
        return ItemLane(pairs, tokens, seed=config.train.seed, lane=lane, lanes=lanes, state=state)

    def holes() -> list[samples.SampleHole]:
        """Return holes of pairs that are trained on, since the stage has no others."""
        return samples.of_rows([rows[index] for index in range(min(len(rows), config.train.sample_holes))], "chosen")

    return loop.Work(
        objective=objectives.dpo(config.beta, config.sft_weight, length_normalised=config.length_normalised),
        open_lane=open_lane,
        complete=samples.completions(holes, storage.fetch(sft)),
        identity=call.key,
    )


class Pairs:
    """Preference pairs as training items."""

    what = "pairs"

    def __init__(self, rows: Rows, folder: Path, *, context: int, budget: int, tokens: int) -> None:
        self.rows, self.context, self.budget, self.tokens = rows, context, budget, tokens
        self.encoder, self.fmt = prompt.load_encoder(folder), prompt.load_format(folder)
        self.numbers: dict[int, tuple[float, float]] = {}
        """The reference's log-probabilities of the two completions, by number of the pair."""

    def __len__(self) -> int:
        return len(self.rows)

    def order(self, *key: object) -> Order:
        return self.rows.order(*key)

    def cut(self, _index: int, _room: int) -> None:
        """Return None: the reference was computed for the whole prompt."""

    def __getitem__(self, index: int) -> Item | None:
        row = self.rows[index]
        chosen = [*self.encoder.encode(row["chosen"]), self.fmt.endoftext]
        rejected = self.encoder.encode(row["rejected"])
        if row["rejected_finished"] or not rejected:  # else it reached the token limit and has no stop to unlearn
            rejected.append(self.fmt.endoftext)
        longest = max(len(chosen), len(rejected))
        budget = min(self.budget, self.context - longest, self.tokens - len(chosen) - len(rejected) - 1)
        if budget < LEAST_PROMPT:
            return None
        rendered = packing.pack(self.fmt, self.encoder.encode, request_of(row), budget=budget).prompt
        numbers = self.numbers.get(index, (0.0, 0.0))
        return pair_item(rendered.ids, chosen, rejected, numbers=numbers, name=row["id"])


def reference_file(output: str, pairs: Pairs, digests: Sequence[str], config: DpoConfig, engine: Engine) -> str:
    """Return the URI of the reference's log-probabilities: next to the outputs, named by a digest of their inputs.

    So a resumed run finds them, and so does a run with another learning rate or beta.
    """
    inputs = {
        "digests": digests,
        "format": pairs.fmt.to_json(),
        "room": [pairs.context, pairs.budget, pairs.tokens],
        "dtype": str(precision(config.train, engine.device)),
        "version": VERSION,
    }
    name = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:24]
    return storage.join(output.rstrip("/").rpartition("/")[0] or ".", REFERENCES, f"{name}.parquet")


def reference(
    engine: Engine, pairs: Pairs, folder: Path, file: str, config: TrainConfig
) -> dict[int, tuple[float, float]]:
    """Return the log-probabilities of both completions of each pair under the model in `folder`, by the pair's number.

    They are read from `file` if an earlier run has written it; otherwise each worker computes its share.
    """
    if engine.sum([float(storage.exists(file))])[0] < engine.world:  # a common decision: all workers compute, or none
        sums = _log_probs(engine, pairs, folder, config)
        if engine.rank == 0:
            storage.write_table(file, pa.table(dict(zip(NAMES, sums, strict=True))))
    else:
        log.info("dpo: using the reference's log-probabilities of an earlier run")
        kept = storage.read_table(file).to_pydict()
        sums = tuple(kept[name] for name in NAMES)
    return {int(pair): (chosen, rejected) for pair, chosen, rejected in zip(*sums, strict=True)}


def _log_probs(engine: Engine, pairs: Pairs, folder: Path, config: TrainConfig) -> tuple[list[float], ...]:
    """Return number, chosen and rejected log-probability of each pair that fits."""
    dtype = precision(config, engine.device)
    lora = bool(config.lora_rank)
    scorer = Scorer(engine.model if lora else without_dropout(model.load(folder)).to(engine.device))
    indices: list[int] = []
    chosen: list[float] = []
    rejected: list[float] = []

    def fitting() -> Iterator[Item]:
        for index in range(len(pairs)):
            if (item := pairs[index]) is not None:
                indices.append(index)
                yield item

    for number, rows in enumerate(rows_of(fitting(), config.micro_batch_tokens)):
        sums = [0.0] * (2 * len(rows))
        if number % engine.world == engine.rank:
            batch = pack(rows, config.micro_batch_tokens).to(engine.device)
            unadapted = adapter.off(engine.model) if lora else contextlib.nullcontext()
            with unadapted, torch.no_grad(), torch.autocast(engine.device.type, dtype, enabled=dtype != torch.float32):
                sums = objectives.segment_sums(score(scorer, batch), batch).tolist()
        chosen += sums[0::2]
        rejected += sums[1::2]
        watchdog.alive()
    return [float(index) for index in indices], engine.sum(chosen), engine.sum(rejected)
