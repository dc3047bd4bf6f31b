"""The SFT stage: fine-tune on the middle of each hole, given its context, suffix and prefix."""

import functools
import itertools
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from transformers import PretrainedConfig

from infill import model, prompt, storage
from infill.artifacts.examples import read_holes, request_of, split_file
from infill.config import SftConfig
from infill.context import packing
from infill.errors import InputError
from infill.prompt import Encoder, PromptFormat
from infill.stages.contract import Call
from infill.train import adapter, card, export, history, loop, objectives, samples, trainer
from infill.train.batch import Batch, Item, pack, plain_item
from infill.train.data import ItemLane, Order, State, rows_of
from infill.train.engine import Engine
from infill.train.held_out import validation
from infill.train.shuffled_rows import Rows
from infill.train.training_job import TrainingJob

VERSION: Final = 3
LEAST_PROMPT: Final = 32
"""Minimum tokens of a prompt; an example whose middle leaves less room is skipped."""
LEAST_CUT: Final = 64
"""Minimum tokens of the prompt of an example that is cut to fill a row."""
WITHOUT_SLACK: Final = packing.PackingRules(slack=0.0)
"""The layout rules of a cut example, which fills its row: no slack for typing is needed."""


def body(call: Call[SftConfig]) -> Mapping[str, float]:
    """Fine-tune the input model on the train split of the examples, write a model folder.

    Only the middle and the end of text are predicted. Returns the metrics. Raises InputError when there are no
    examples.
    """
    config, base, output = call.settings, call.inputs["model"], call.output
    if not export.finished(output):
        adapter.check_start(config.train, base)
        job = TrainingJob(
            label="sft",
            train=config.train,
            output=output,
            settings=functools.partial(settings_of, storage.fetch(base)),
            model=functools.partial(model.load, storage.fetch(base)),
            tokenizer=base,
            work=functools.partial(_work, call),
        )
        trainer.fit(job)
        facts = card.of_base(base)
        facts["trainings"] = [*facts["trainings"], *adapter.trainings(config.train)]
        card.write(
            output,
            card.trained(facts, call.stage, output, call.digests),
            title="Infill completion model",
            about="Fine-tuned by Infill to fill syntactic holes, with context from the same repository in the prompt.",
        )
    return history.metrics(output)


def outside(config: SftConfig, _: Mapping[str, str]) -> dict[str, str]:
    """Return the digest of what the stage reads besides artifacts: the adapter from which it continues, if any."""
    return adapter.started(config.train)


def _work(call: Call[SftConfig], engine: Engine) -> loop.Work:
    config, examples, folder = call.settings, call.inputs["examples"], storage.fetch(call.inputs["model"])
    context = room(engine, config.train.micro_batch_tokens)
    rows = Rows(split_file(examples, "train"))
    if not len(rows):
        raise InputError(f"{examples} has no examples in its train split; add sources to the corpus")
    items = Examples(rows, folder, config, context)
    tokens, lanes = config.train.micro_batch_tokens, config.train.batch_tokens // config.train.micro_batch_tokens

    def open_lane(lane: int, state: State | None) -> ItemLane:
        return ItemLane(items, tokens, seed=config.train.seed, lane=lane, lanes=lanes, state=state)

    def held_out() -> list[Batch]:
        held = Rows(split_file(examples, "validation"))
        others = Examples(held, folder, config, context)
        fitting = (item for index in range(len(others)) if (item := others[index]) is not None)
        packed = itertools.islice(rows_of(fitting, tokens), config.train.validation_batches)
        return [pack(row, tokens) for row in packed]

    def holes() -> list[samples.SampleHole]:
        rows = read_holes(examples, "validation", config.train.sample_holes).to_pylist()
        return samples.of_rows(rows, "middle")

    return loop.Work(
        objective=objectives.language_model,
        open_lane=open_lane,
        validate=validation(held_out),
        complete=samples.completions(holes, folder),
        identity=call.key,
    )


def settings_of(folder: Path) -> PretrainedConfig:
    """Return the configuration of the model in `folder`. Raises InputError when its tokenizer does not fit."""
    settings, rows = model.load_config(folder), prompt.load_encoder(folder).vocab_size
    if settings.vocab_size < rows:
        raise InputError(
            f"the model in {folder} embeds {settings.vocab_size} tokens, but its tokenizer has {rows}; they do not "
            "belong together: fetch or train the model again"
        )
    return settings


def room(engine: Engine, micro_batch_tokens: int) -> int:
    """Return the maximum length of an example: the model's context, or a micro-batch if that is shorter."""
    return min(model.context_length(engine.model.config), micro_batch_tokens)


class Examples:
    """Holes as training items."""

    what = "examples"

    def __init__(self, rows: Rows, folder: Path, config: SftConfig, context: int) -> None:
        self.rows, self.config, self.context = rows, config, context
        self.encoder: Encoder = prompt.load_encoder(folder)
        self.fmt: PromptFormat = prompt.load_format(folder)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Item | None:
        return self._render(index, self.context, LEAST_PROMPT, packing.RULES)

    def order(self, *key: object) -> Order:
        return self.rows.order(*key)

    def cut(self, index: int, room: int) -> Item | None:
        """Return the example with less context and less of its file, in at most `room` tokens; None if too short."""
        return self._render(index, room, LEAST_CUT, WITHOUT_SLACK)

    def _render(self, index: int, room: int, least: int, rules: packing.PackingRules) -> Item | None:
        row = self.rows[index]
        middle = [*self.encoder.encode(row["middle"]), self.fmt.endoftext]
        budget = min(self._limit(row["id"]), room - len(middle))
        if budget < least:
            return None
        rendered = packing.pack(self.fmt, self.encoder.encode, request_of(row), budget=budget, rules=rules).prompt
        return plain_item(
            [*rendered.ids, *middle],
            start=len(rendered.ids) - 1,
            group=row["language"],
            text_bytes=len(row["middle"].encode("utf-8", "surrogatepass")),
            name=row["id"],
        )

    def _limit(self, name: str) -> int:
        """Return the maximum number of tokens of the prompt of the example `name`."""
        longest = self.config.max_prompt_tokens or self.context
        if not self.config.prompt_lengths:
            return longest
        lengths, shares = zip(*self.config.prompt_lengths, strict=True)
        drawn: int = random.Random(f"{self.config.train.seed}/{name}").choices(lengths, shares)[0]
        return min(drawn, longest)
