"""The DPO stage: prefer the chosen completion over the rejected one, without straying far from the SFT model.

The reference's log-probabilities are computed once, before the first step, and kept in the stage's folder.
"""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import torch

from infill import manifest, model, prompt, storage
from infill.config import DpoConfig, TrainConfig
from infill.errors import InputError
from infill.examples import request_of
from infill.train import card, export, history, launch, loop, objectives, samples
from infill.train.batch import Item, pack, pair_item
from infill.train.data import ItemLane, State, rows_of
from infill.train.engine import Engine, precision
from infill.train.scorer import Scorer, score
from infill.train.sft import LEAST_PROMPT, room

STAGE: Final = "dpo"
VERSION: Final = 1
REFERENCE_FILE: Final = "reference.parquet"


def run(config: DpoConfig, preferences: str, sft: str, output: str) -> dict[str, float]:
    """Train the model folder `sft` on the pairs of `preferences` into the model folder `output`; return the metrics.

    `accuracy` is the share of pairs whose chosen completion gained more than the rejected one, `margin` by how much.
    Raises InputError without pairs.
    """
    inputs = {"preferences": manifest.digest_of(preferences), "model": manifest.digest_of(sft)}
    body = functools.partial(_train, config, preferences, sft, output, manifest.key(STAGE, VERSION, config, inputs))
    return manifest.once(stage=STAGE, version=VERSION, config=config, inputs=inputs, output=output, body=body)


def _train(config: DpoConfig, preferences: str, sft: str, output: str, key: str) -> Mapping[str, float]:
    if not export.finished(output):
        job = launch.Job(
            label="dpo",
            train=config.train,
            output=output,
            settings=functools.partial(model.load_config, storage.fetch(sft)),
            model=functools.partial(model.load, storage.fetch(sft)),
            tokenizer=sft,
            work=functools.partial(_work, config, preferences, sft, output, key),
        )
        launch.fit(job)
        inputs = {"preferences": manifest.digest_of(preferences), "model": manifest.digest_of(sft)}
        card.write(
            output,
            card.trained(card.of_base(sft), STAGE, output, inputs),
            title="Infill completion model, preference-tuned",
            about="Fine-tuned by Infill to fill syntactic holes, then by direct preference optimisation.",
        )
    return history.metrics(output)


def _work(config: DpoConfig, preferences: str, sft: str, output: str, key: str, engine: Engine) -> loop.Work:
    tokens, lanes = config.train.micro_batch_tokens, config.train.batch_tokens // config.train.micro_batch_tokens
    table = storage.read_table(storage.join(preferences, "pairs.parquet"))
    context = room(engine, tokens)
    pairs = Pairs(table, storage.fetch(sft), context=context, budget=config.max_prompt_tokens, tokens=tokens)
    pairs.numbers = reference(engine, pairs, storage.fetch(sft), output, config.train)
    if not pairs.numbers:
        raise InputError(f"{preferences} has no pair that fits a context of {context} tokens; sample more holes")

    def open_lane(lane: int, state: State | None) -> ItemLane:
        return ItemLane(pairs, tokens, seed=config.train.seed, lane=lane, lanes=lanes, state=state)

    def holes() -> list[samples.Hole]:
        """Of pairs that are trained on: the stage is given no others."""
        return samples.of_rows(table.slice(0, config.train.sample_holes).to_pylist(), "chosen")

    return loop.Work(
        objective=objectives.dpo(config.beta, config.sft_weight),
        open_lane=open_lane,
        complete=samples.completions(holes, storage.fetch(sft)),
        identity=key,
    )


class Pairs:
    """Preference pairs as training items."""

    what = "pairs"

    def __init__(self, table: pa.Table, folder: Path, *, context: int, budget: int, tokens: int) -> None:
        self.table, self.context, self.budget, self.tokens = table, context, budget, tokens
        self.encoder, self.fmt = prompt.load_encoder(folder), prompt.load_format(folder)
        self.numbers: dict[int, tuple[float, float]] = {}
        """Pair -> the reference's log-probability of its two completions."""

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __getitem__(self, index: int) -> Item | None:
        row: dict[str, Any] = self.table.slice(index, 1).to_pylist()[0]
        chosen = [*self.encoder.encode(row["chosen"]), self.fmt.endoftext]
        rejected = self.encoder.encode(row["rejected"])
        if row["rejected_finished"] or not rejected:  # else it ran into the limit: no stop there to be unlearned
            rejected.append(self.fmt.endoftext)
        longest = max(len(chosen), len(rejected))
        budget = min(self.budget, self.context - longest, self.tokens - len(chosen) - len(rejected) - 1)
        if budget < LEAST_PROMPT:
            return None
        rendered = prompt.render(self.fmt, self.encoder.encode, request_of(row), budget=budget)
        numbers = self.numbers.get(index, (0.0, 0.0))
        return pair_item(rendered.ids, chosen, rejected, numbers=numbers, name=row["id"])


def reference(
    engine: Engine, pairs: Pairs, folder: Path, output: str, config: TrainConfig
) -> dict[int, tuple[float, float]]:
    """Log-probabilities of both completions of each pair under the model in `folder`, by the pair's number.

    They are read from `output` where a killed run has left them; else each worker computes its share.
    """
    file = storage.join(output, REFERENCE_FILE)
    if not storage.exists(file):
        sums = _log_probs(engine, pairs, folder, config)
        if engine.rank == 0:
            names = ("pair", "chosen", "rejected")
            storage.write_table(file, pa.table(dict(zip(names, sums, strict=True))))
        return {int(pair): (chosen, rejected) for pair, chosen, rejected in zip(*sums, strict=True)}
    columns = storage.read_table(file).to_pydict()
    return {
        pair: (chosen, rejected)
        for pair, chosen, rejected in zip(columns["pair"], columns["chosen"], columns["rejected"], strict=True)
    }


def _log_probs(engine: Engine, pairs: Pairs, folder: Path, config: TrainConfig) -> tuple[list[float], ...]:
    """Number, chosen and rejected log-probability of each pair that has room."""
    found = [(index, item) for index in range(len(pairs)) if (item := pairs[index]) is not None]
    dtype = precision(config, engine.device)
    scorer = Scorer(launch.without_dropout(model.load(folder)).to(engine.device))
    chosen, rejected = [0.0] * len(found), [0.0] * len(found)
    place = 0
    for number, rows in enumerate(rows_of([item for _, item in found], config.micro_batch_tokens)):
        if number % engine.world == engine.rank:
            batch = pack(rows, config.micro_batch_tokens).to(engine.device)
            with torch.no_grad(), torch.autocast(engine.device.type, dtype, enabled=dtype != torch.float32):
                sums = objectives.segment_sums(score(scorer, batch), batch).tolist()
            chosen[place : place + len(rows)], rejected[place : place + len(rows)] = sums[0::2], sums[1::2]
        place += len(rows)
    return [float(index) for index, _ in found], engine.sum(chosen), engine.sum(rejected)
