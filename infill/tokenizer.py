"""The tokenizer stage: a byte-level BPE trained on the corpus, or the tokenizer of a published base model.

Text is split by a pattern like Qwen's: runs of blanks and line breaks stay together, numbers are split into digits. On
46 MB of code with 49,152 entries, it gives 13 % more bytes per token than StarCoder's, which is GPT-2's pattern with
split digits; `python -m benchmarks.tokenizer` measures both again, next to tiktoken's encodings. There is no
normaliser, so decoding restores every byte.
"""

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from infill import bases, fim, manifest, prompt, storage
from infill.artifacts.corpus import documents
from infill.bases.pre_tokenizers import PATTERN
from infill.config import TokenizerConfig
from infill.errors import InputError
from infill.stages.contract import Call

VERSION: Final = 2

HELD_OUT_BYTES: Final = 5_000_000
"""Bytes of validation and test repositories on which the report is measured."""
BATCH: Final = 64
"""Texts that are encoded together, on all cores."""
PROMPTS: Final = 500
"""Held-out documents in which a hole is cut to count the tokens of a prompt."""
CHECKPOINT_FILES: Final = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
"""Files that accompany a checkpoint's `tokenizer.json`, if they exist."""
METRICS: Final = ("vocab_size", "bytes_per_token", "round_trip", "unused_share", "tokens")


def body(call: Call[TokenizerConfig]) -> Mapping[str, float]:
    """Write the tokenizer for the corpus; return the metrics.

    Metrics: `vocab_size`; on held-out repositories `bytes_per_token`, `round_trip` (share of documents that decode to
    themselves) and `unused_share` (of the vocabulary); `tokens`, an estimate for the train split. Raises InputError
    when the base model has no tokenizer, or one without fill-in-the-middle tokens.
    """
    config, corpus, output = call.settings, call.inputs["corpus"], call.output
    sampled = Counter[str]()
    files = _imported(config) if config.base_model else _trained(config, corpus, sampled)
    encoder = prompt.Encoder(json.loads(files["tokenizer.json"]))
    fmt = prompt.PromptFormat.from_json(json.loads(files[prompt.FILE_NAME]))
    report = measure(encoder, fmt, corpus, seed=config.seed)
    report["sample_bytes_by_language"] = dict(sorted(sampled.items()))
    if report["round_trip"] < 1 and not config.base_model:
        raise RuntimeError(f"the trained tokenizer loses text: it restores {report['round_trip']:.4%} of the documents")
    if config.base_model:
        report["prompt_format"] = prompt.why_format(bases.fetch(config.base_model, add_fim=config.add_fim))
    for name, data in files.items():
        storage.write_bytes(storage.join(output, name), data)
    manifest.write_report(output, report)
    return {name: float(report[name]) for name in METRICS}


def outside(config: TokenizerConfig, _: Mapping[str, str]) -> dict[str, str]:
    """Return the digest of the base model's tokenizer, which the stage reads besides the corpus; empty without one."""
    if not config.base_model:
        return {}
    digest = hashlib.sha256()
    for name, data in sorted(_imported(config).items()):
        digest.update(f"{name}\0{hashlib.sha256(data).hexdigest()}\0".encode())
    return {"base_model": digest.hexdigest()}


# Training


def _trained(config: TokenizerConfig, corpus: str, sampled: Counter[str]) -> dict[str, bytes]:
    """Return the files of a tokenizer trained on `corpus`, and count the bytes of each language in `sampled`."""
    texts = _counted(training_sample(config, corpus), sampled)
    first = next(texts, None)
    if first is None:
        raise InputError(f"the train split of {corpus} has no text of at most {config.max_bytes} bytes to train on")
    tokenizer = train(itertools.chain([first], texts), vocab_size=config.vocab_size)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": None,
        "eos_token": "<|endoftext|>",
        "pad_token": "<fim_pad>",
        "clean_up_tokenization_spaces": False,
        "add_prefix_space": False,
        "model_max_length": 1_000_000_000,
    }
    return {
        "tokenizer.json": tokenizer.to_str(pretty=False).encode(),
        "tokenizer_config.json": _json(settings),
        prompt.FILE_NAME: _json(prompt.infill_format().to_json()),
    }


def training_sample(config: TokenizerConfig, corpus: str) -> Iterator["Text"]:
    """Yield the texts that a tokenizer of `corpus` is trained on."""
    weight = config.language_exponent
    return sample(corpus, splits=("train",), max_bytes=config.max_bytes, seed=config.seed, exponent=weight)


def _counted(texts: Iterable["Text"], sampled: Counter[str]) -> Iterator[str]:
    for each in texts:
        sampled[each.language] += len(each.text.encode())
        yield each.text


def splitter() -> pre_tokenizers.PreTokenizer:
    """Return the pre-tokenizer that ours is trained with."""
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def train(
    texts: Iterable[str], *, vocab_size: int, pre_tokenizer: pre_tokenizers.PreTokenizer | None = None
) -> Tokenizer:
    """Return a byte-level BPE of at most `vocab_size` entries with the reserved tokens at ids 0 to 31.

    The result depends only on the texts and their order, not on the number of threads. Without a `pre_tokenizer`, the
    text is split by ours.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer or splitter()
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(prompt.RESERVED_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        max_token_length=64,
        show_progress=False,
    )
    tokenizer.train_from_iterator(iter(texts), trainer)
    return tokenizer


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def _imported(config: TokenizerConfig) -> dict[str, bytes]:
    """Return the tokenizer files of a published checkpoint, with its prompt format, by name."""
    folder = bases.fetch(config.base_model, add_fim=config.add_fim)
    try:
        fmt = prompt.load_format(folder)
        prompt.load_encoder(folder)
    except InputError as error:
        raise InputError(f"the base model {config.base_model} cannot be used: {error}") from error
    names = ("tokenizer.json", *(name for name in CHECKPOINT_FILES if (folder / name).exists()))
    return {name: (folder / name).read_bytes() for name in names} | {prompt.FILE_NAME: _json(fmt.to_json())}


# Reading the corpus


class Text(NamedTuple):
    """A document of the corpus."""

    language: str
    path: str
    text: str


def _groups(corpus: str, columns: Sequence[str], splits: Sequence[str]) -> Iterator[pa.Table]:
    """Yield the documents of `splits`, one row group of the corpus at a time."""
    for uri in documents(corpus):
        fs, path = storage.filesystem(uri)
        with fs.open(path, "rb") as file:
            parquet = pq.ParquetFile(file)
            for number in range(parquet.num_row_groups):
                group = parquet.read_row_group(number, columns=["split", *columns])
                yield group.filter(pc.is_in(group["split"], value_set=pa.array(list(splits))))


def sizes(corpus: str, split: str) -> dict[str, int]:
    """Return the bytes of text in a split of the corpus, by language."""
    totals = Counter[str]()
    for group in _groups(corpus, ("language", "content"), (split,)):
        for language, length in zip(group["language"], pc.binary_length(group["content"]), strict=True):
            totals[language.as_py()] += length.as_py()
    return dict(totals)


def sample(corpus: str, *, splits: Sequence[str], max_bytes: int, seed: int, exponent: float = 1.0) -> Iterator[Text]:
    """Yield documents of `splits`, at most `max_bytes` of text, in corpus order.

    Each language has its share of the bytes (`shares`), and the documents with the smallest hashes of (seed, text) are
    chosen. So the choice does not depend on the order of the corpus, and a smaller sample is part of a larger one.
    """
    ranks, lengths, languages = list[int](), list[int](), list[str]()
    for group in _groups(corpus, ("language", "sha256", "content"), splits):
        ranks += [_rank(str(digest), seed) for digest in group["sha256"].to_pylist()]
        lengths += pc.binary_length(group["content"]).to_pylist()
        languages += map(str, group["language"].to_pylist())
    chosen = _chosen(np.array(ranks, np.uint64), np.array(lengths, np.int64), np.array(languages), max_bytes, exponent)
    for group in _groups(corpus, ("language", "path", "sha256", "content"), splits):
        taken = group.filter(
            pa.array([_rank(str(digest), seed) in chosen for digest in group["sha256"].to_pylist()], pa.bool_())
        )
        yield from map(Text, *(taken[name].to_pylist() for name in ("language", "path", "content")))


def _chosen(
    ranks: NDArray[np.uint64], lengths: NDArray[np.int64], languages: NDArray[Any], max_bytes: int, exponent: float
) -> set[int]:
    """Return the ranks of the documents in a sample, the smallest of each language that fit into its share."""
    by_language = {str(name): np.flatnonzero(languages == name) for name in np.unique(languages)}
    sizes = {name: int(lengths[rows].sum()) for name, rows in by_language.items()}
    chosen = set[int]()
    for name, share in shares(sizes, max_bytes, exponent).items():
        rows = by_language[name]
        rows = rows[np.argsort(ranks[rows], kind="stable")]
        fitting = int(np.searchsorted(np.cumsum(lengths[rows]), share, side="right"))
        chosen.update(ranks[rows[:fitting]].tolist())
    return chosen


def shares(sizes: Mapping[str, int], max_bytes: int, exponent: float) -> dict[str, int]:
    """Return the bytes of each language in a sample of `max_bytes`, in proportion to `size ** exponent`.

    A language that has less than its share gives the rest to the others. No share falls when `max_bytes` grows.
    """
    result, left, rest = dict[str, int](), float(max_bytes), dict(sorted(sizes.items()))
    while rest:
        weights = {name: float(size) ** exponent for name, size in rest.items()}
        unit = max(left, 0.0) / (sum(weights.values()) or 1.0)
        whole = [name for name, size in rest.items() if size <= unit * weights[name]]
        if not whole:
            return result | {name: int(unit * weight) for name, weight in weights.items()}
        for name in whole:
            result[name] = rest.pop(name)
            left -= result[name]
    return result


def _rank(digest: str, seed: int) -> int:
    """Return a number below 2**64 from a document's SHA-256 and the seed (the step of splitmix64)."""
    mixed = (int(digest[:16], 16) + seed * 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    return mixed ^ (mixed >> 31)


# Measuring


def measure(encoder: prompt.Encoder, fmt: prompt.PromptFormat, corpus: str, *, seed: int) -> dict[str, Any]:
    """Return a report of the tokenizer on held-out repositories, or on the train split if there are none.

    It has `bytes_per_token` in total and by language, the shares `round_trip` and `unused_share`, percentiles of tokens
    per document and per prompt, and `tokens`, the train split's bytes divided by each language's bytes per token.
    """
    held_out = list(sample(corpus, splits=("validation", "test"), max_bytes=HELD_OUT_BYTES, seed=seed))
    documents = held_out or list(sample(corpus, splits=("train",), max_bytes=HELD_OUT_BYTES, seed=seed))
    size, tokens = Counter[str](), Counter[str]()
    counts: list[int] = []
    used: set[int] = set()
    same = 0
    for first in range(0, len(documents), BATCH):
        batch = documents[first : first + BATCH]
        for each, ids in zip(batch, encoder.encode_batch([each.text for each in batch]), strict=True):
            size[each.language] += len(each.text.encode())
            tokens[each.language] += len(ids)
            counts.append(len(ids))
            used.update(ids)
            same += encoder.decode(ids) == each.text
    by_language = {language: size[language] / max(tokens[language], 1) for language in sorted(size)}
    overall = size.total() / max(tokens.total(), 1)
    train = sizes(corpus, "train")
    return {
        "vocab_size": encoder.vocab_size,
        "held_out": bool(held_out),
        "documents": len(documents),
        "bytes": size.total(),
        "bytes_per_token": overall,
        "bytes_per_token_by_language": by_language,
        "round_trip": same / max(len(documents), 1),
        "unused_share": 1 - len(used) / encoder.vocab_size,
        "tokens_per_document": _percentiles(counts),
        "tokens_per_prompt": _percentiles([_prompt_tokens(encoder, fmt, each, seed) for each in documents[:PROMPTS]]),
        "train_bytes": sum(train.values()),
        "tokens": round(sum(count / by_language.get(language, overall) for language, count in train.items())),
    }


def _prompt_tokens(encoder: prompt.Encoder, fmt: prompt.PromptFormat, document: Text, seed: int) -> int:
    """Return the tokens of the prompt for a random hole in a document: all of the file, no other files, no limit."""
    start, end = fim.random_span(document.text, seed=seed, epoch=0, document=document.path)
    request = prompt.FimRequest(path=document.path, prefix=document.text[:start], suffix=document.text[end:])
    return len(prompt.render(fmt, encoder.encode, request).ids)


def _percentiles(counts: Sequence[int]) -> dict[str, float]:
    return {f"p{part}": float(np.percentile(counts, part)) for part in (50, 95)}
