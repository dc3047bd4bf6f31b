"""The pre-training stage: a base model from scratch, or a published one, imported unchanged or trained further."""

import functools
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch
from transformers import LlamaConfig, PretrainedConfig

from infill import bases, model, prompt, storage
from infill.config import PretrainConfig
from infill.errors import InputError
from infill.prompt import Encoder
from infill.stages.contract import Call
from infill.train import adapter, card, export, history, loop, memory, objectives, samples, trainer
from infill.train.batch import Batch
from infill.train.data import JOINED_CHARS, State, TextLane, TrainingDocuments
from infill.train.engine import Engine
from infill.train.held_out import validation
from infill.train.sft import settings_of
from infill.train.training_job import TrainingJob

VERSION: Final = 1
MOST_CHARS: Final = 16
"""Characters per token of a batch that are always enough, whatever the tokenizer."""


def body(call: Call[PretrainConfig]) -> Mapping[str, float]:
    """Train a base model on the train split of the corpus, write a model folder; return the metrics.

    With the setting `base_model`, that checkpoint is copied instead, after a check that it loads and has infilling
    tokens; with `continued` also, it is trained further. Raises InputError for settings or a base that cannot be used.
    """
    config = call.settings
    if (config.continued or config.add_fim) and not config.base_model:
        raise InputError("pretrain.continued and add_fim need a published base; name one as base_model")
    if config.train.lora_rank and not config.base_model:
        raise InputError("pretrain.train.lora_rank needs a published base; name one as base_model, or set it to 0")
    return _import(config, call.output) if config.base_model and not config.continued else _train(call)


def outside(config: PretrainConfig, _: Mapping[str, str]) -> dict[str, str]:
    """Return the digests of what the stage reads besides artifacts: the base model and the adapters, if any."""
    digests = {"base_model": bases.fingerprint(config.base_model)} if config.base_model else {}
    return (
        digests
        | ({"adapter": adapter.digest(config.adapter)} if config.adapter else {})
        | adapter.started(config.train)
    )


def _train(call: Call[PretrainConfig]) -> Mapping[str, float]:
    config, output = call.settings, call.output
    corpus, tokenizer = call.inputs["corpus"], call.inputs["tokenizer"]
    folder = storage.fetch(tokenizer)
    if config.continued:
        config = _of_base(config, folder)
    vocab_size = _settings(config, folder).vocab_size
    count = model.parameters(config.model, vocab_size)
    if not export.finished(output):
        check_size(corpus, config.train.batch_tokens, prompt.load_encoder(folder))
        if config.continued:
            adapter.check_start(config.train, str(_base(config)))
        job = TrainingJob(
            label="pretrain",
            train=config.train,
            output=output,
            settings=functools.partial(_settings, config, folder),
            model=functools.partial(_new_model, config, folder),
            tokenizer=tokenizer,
            work=functools.partial(_work, config, corpus, tokenizer, call.key),
            base=str(_base(config)) if config.continued else "",
        )
        trainer.fit(job)
        facts = card.start(corpus, tokenizer, licence=config.licence, parameters=count)
        origin = "trained from scratch"
        if config.continued:
            facts |= card.of_base(str(_base(config)), named=config.base_model)
            facts["trainings"] = [*facts["trainings"], *adapter.trainings(config.train)]
            origin = "a published base, trained further"
        card.write(
            output,
            card.trained(facts, call.stage, output, call.digests),
            title="Infill base model",
            about=f"A decoder of {count:,} parameters, {origin} by Infill on whole files, of which"
            f" {config.fim_rate:.0%} are rearranged to suffix, prefix, middle.",
        )
    return {**history.metrics(output), "parameters": float(count)}


def check_size(corpus: str, batch_tokens: int, encoder: Encoder) -> None:
    """Raise InputError when the train split of `corpus` has fewer tokens than a batch: all batches would be the same.

    Reads no more than necessary.
    """
    documents, tokens, read = TrainingDocuments(corpus, "train"), 0, 0
    texts = (
        str(text) for shard in range(len(documents.shards)) for text in documents.table(shard)["content"].to_pylist()
    )
    for text in texts:
        read += len(text)
        tokens += len(encoder.encode(text)) if read < batch_tokens * MOST_CHARS else batch_tokens
        if tokens >= batch_tokens:
            return
    raise InputError(
        f"the train split of {corpus} has {tokens:,} tokens, but a batch takes {batch_tokens:,}; add sources or lower "
        "pretrain.train.batch_tokens"
    )


def _base(config: PretrainConfig) -> Path:
    """Return the folder of the base model with its adapter, if any, merged."""
    return adapter.adapted(config.base_model, add_fim=config.add_fim, adapter=config.adapter)


def _of_base(config: PretrainConfig, tokenizer: Path) -> PretrainConfig:
    """Return `config` with the shape of its base; a document has at most the length of a micro-batch.

    Raises InputError when the tokenizer is not the base's.
    """
    base = _base(config)
    own, other = (prompt.read_tokenizer(folder) for folder in (base, tokenizer))
    if own["model"]["vocab"] != other["model"]["vocab"] or prompt.load_format(base) != prompt.load_format(tokenizer):
        raise InputError(
            f"the tokenizer in {tokenizer} is not that of the base model {config.base_model}; "
            "run the tokenizer stage with the same base_model and add_fim"
        )
    shape, _ = memory.shape_of(settings_of(base))
    context = min(shape.context_length, config.train.micro_batch_tokens)
    return replace(config, model=replace(shape, context_length=context))


def _settings(config: PretrainConfig, tokenizer: Path) -> PretrainedConfig:
    return model.load_config(_base(config)) if config.continued else _fresh(config, tokenizer)


def _fresh(config: PretrainConfig, tokenizer: Path) -> LlamaConfig:
    return model.llama_config(config.model, prompt.load_encoder(tokenizer).vocab_size, prompt.load_format(tokenizer))


def _new_model(config: PretrainConfig, tokenizer: Path) -> Any:
    if config.continued:
        return model.load(_base(config))
    return model.build(_fresh(config, tokenizer), seed=config.train.seed)


def _work(config: PretrainConfig, corpus: str, tokenizer: str, key: str, _engine: Engine) -> loop.Work:
    folder = storage.fetch(tokenizer)
    encoder, fmt = prompt.load_encoder(folder), prompt.load_format(folder)
    joined_chars = JOINED_CHARS * config.model.context_length if config.repository_context else 0
    documents = TrainingDocuments(corpus, "train", joined_chars=joined_chars)
    lanes = config.train.batch_tokens // config.train.micro_batch_tokens

    def open_lane(lane: int, state: State | None) -> TextLane:
        return TextLane(documents, encoder, fmt, config, lane=lane, lanes=lanes, state=state)

    def held_out() -> list[Batch]:
        """Return the first micro-batches of the validation split, as plain text, each file at most once."""
        plain = replace(config, fim_rate=0.0, path_rate=0.0, mixture=())
        lane = TextLane(TrainingDocuments(corpus, "validation"), encoder, fmt, plain)
        batches: list[Batch] = []
        try:
            while len(batches) < config.train.validation_batches and lane.state["epoch"] == 0:
                batches.append(lane())
        except InputError:  # a split without text
            pass
        return batches

    def holes() -> list[samples.SampleHole]:
        return samples.of_documents(corpus, "validation", config.train.sample_holes, config.train.seed)

    return loop.Work(
        objective=objectives.language_model,
        open_lane=open_lane,
        validate=validation(held_out),
        complete=samples.completions(holes, folder),
        identity=key,
    )


def _import(config: PretrainConfig, output: str) -> Mapping[str, float]:
    """Copy a published checkpoint after loading it as a check."""
    folder = _base(config)
    prompt.load_format(folder)
    rows = prompt.load_encoder(folder).vocab_size
    dtype = model.load_config(folder).dtype
    decoder = model.load(folder, dtype if isinstance(dtype, torch.dtype) else None)  # in its own type, to save memory
    embedded = decoder.get_input_embeddings().num_embeddings
    if embedded < rows:
        raise InputError(f"{folder} embeds {embedded} tokens, but its tokenizer has {rows}; use the model's tokenizer")
    weights = sorted(folder.glob("*.safetensors*"))
    if weights:
        for path in [folder / "config.json", *folder.glob("generation_config.json"), *weights]:
            with path.open("rb") as source, storage.open_write(storage.join(output, path.name)) as target:
                shutil.copyfileobj(source, target, storage.CHUNK_BYTES)
        export.copy_tokenizer(str(folder), output)
    else:  # an older checkpoint, in PyTorch's own format
        export.save(decoder, str(folder), output, dtype=decoder.dtype)
    count = sum(weight.numel() for weight in decoder.parameters())
    facts = {"title": "Imported base model", "about": "A published checkpoint, imported unchanged by Infill."}
    facts |= card.of_base(str(folder), named=config.base_model)
    card.write(output, facts | {"parameters": count}, title=facts["title"], about=facts["about"])
    return {"parameters": float(count)}
