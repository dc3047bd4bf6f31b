"""Measure the tokenizer; the last line is one JSON object.

    python -m benchmarks.tokenizer [--quick] [--source URI] [--no-peers]

Two tokenizers of equal size are trained on the same sample, one split by Qwen's pattern (ours), one as StarCoder's
(GPT-2's pattern, single digits). Both encode the same held-out repositories, and so do tiktoken's encodings, which
bpe-openai brings along: it is installed by pip into an environment of its own in the user's cache. Bytes per token
depend on the size of the vocabulary: tiktoken's have 100,277 and 200,019 entries.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from tokenizers import pre_tokenizers

from benchmarks import peer_environment, tiktoken_peer
from infill import entry, prompt, tokenizer
from infill.cli_options import absolute_source
from infill.config import CorpusConfig, TokenizerConfig
from infill.stages import execute

REQUIREMENTS: Final = ("bpe-openai==0.1.4",)
LANGUAGES: Final = 12
"""Languages that the result lists, those with the most held-out text."""
Texts = Sequence[tokenizer.Text]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = entry.Parser(prog="python -m benchmarks.tokenizer", description="The tokenizer, its rival and its peers.")
    parser.add_argument("--quick", action="store_true", help="2 MB of text and 4,096 entries")
    parser.add_argument("--source", type=absolute_source, default="packages:", metavar="URI", help="default: packages:")
    parser.add_argument("--no-peers", action="store_true", help="install and measure no peer")
    options = parser.parse_args(arguments)
    config = TokenizerConfig(vocab_size=4_096, max_bytes=2_000_000) if options.quick else TokenizerConfig()
    with tempfile.TemporaryDirectory() as folder:
        corpus = _corpus(options.source, Path(folder), 2 * config.max_bytes)
        held_out = [*tokenizer.sample(corpus, splits=("validation", "test"), max_bytes=config.max_bytes // 10, seed=0)]
        result: dict[str, Any] = {"vocab_size": config.vocab_size, "held_out_mb": _megabytes(held_out)}
        result |= {name: _trained(name, config, corpus, held_out) for name in ("qwen2", "starcoder")}
        if not options.no_peers:
            result |= _peers(held_out, Path(folder))
    ours, rival = (result[name]["bytes_per_token"]["all"] for name in ("qwen2", "starcoder"))
    print(json.dumps(result | {"qwen2_over_starcoder": round(ours / rival, 3)}))


def _corpus(source: str, folder: Path, limit: int) -> str:
    output = str(folder / "corpus")
    execute("corpus", CorpusConfig(sources=(source,), max_total_bytes=limit), {}, "", output=output)
    return output


def _megabytes(texts: Texts) -> float:
    return round(sum(len(each.text.encode()) for each in texts) / 1e6, 1)


# Ours and its rival


def _splitter(name: str) -> pre_tokenizers.PreTokenizer:
    if name == "qwen2":
        return tokenizer.splitter()
    digits = pre_tokenizers.Digits(individual_digits=True)
    return pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])


def _trained(name: str, config: TokenizerConfig, corpus: str, held_out: Texts) -> dict[str, Any]:
    """Train on the corpus with the pre-tokenizer `name`; return rates and bytes per token."""
    texts = list(tokenizer.training_sample(config, corpus))
    started = time.process_time()
    trained = tokenizer.train(
        (each.text for each in texts), vocab_size=config.vocab_size, pre_tokenizer=_splitter(name)
    )
    seconds = time.process_time() - started
    encoder = prompt.Encoder(json.loads(trained.to_str()))
    batch = [each.text for each in held_out]
    encoding, cores = _encoding(encoder, batch)
    ids = encoder.encode_batch(batch)
    used = {token for each in ids for token in each}
    return {
        "trained_on_mb": _megabytes(texts),
        "training_mb_per_s_of_a_core": round(_megabytes(texts) / seconds, 2),
        "encoding_mb_per_s_of_a_core": round(_megabytes(held_out) / encoding, 2),
        "encoding_on_cores": round(cores, 2),
        "unused_share": round(1 - len(used) / encoder.vocab_size, 4),
        "round_trip": sum(encoder.decode(each) == text for each, text in zip(ids, batch, strict=True)) / len(batch),
        "bytes_per_token": _by_language(held_out, map(len, ids)),
    }


def _encoding(encoder: prompt.Encoder, texts: list[str]) -> tuple[float, float]:
    """Return the processor seconds of encoding `texts`, and the number of cores that they can be shared by.

    It is all threads' time over that of the busiest, so other processes on the machine do not change it.
    """
    before, started = _threads(), time.process_time()
    for first in range(0, len(texts), tokenizer.BATCH):
        encoder.encode_batch(texts[first : first + tokenizer.BATCH])
    seconds = time.process_time() - started
    busiest = max(after - before.get(thread, 0.0) for thread, after in _threads().items())
    return seconds, seconds / busiest


def _threads() -> dict[str, float]:
    """Return the processor seconds of each thread of this process (proc(5))."""
    times = dict[str, float]()
    for task in Path("/proc/self/task").iterdir():
        fields = (task / "stat").read_bytes().rpartition(b")")[2].split()
        times[task.name] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return times


def _by_language(texts: Texts, counts: Iterable[int]) -> dict[str, float]:
    """Return bytes per token in all `texts`, and by language, those with the most text first."""
    size, tokens = Counter[str](), Counter[str]()
    for each, count in zip(texts, counts, strict=True):
        for name in ("all", each.language):
            size[name] += len(each.text.encode())
            tokens[name] += count
    return {name: round(size[name] / tokens[name], 3) for name, _ in size.most_common(LANGUAGES + 1)}


# tiktoken's encodings


def _peers(held_out: Texts, folder: Path) -> dict[str, Any]:
    file = folder / "texts.jsonl"
    file.write_text("".join(json.dumps(each.text) + "\n" for each in held_out), encoding="utf-8")
    command = [peer_environment.python("tokenizer", REQUIREMENTS), tiktoken_peer.__file__, str(file)]
    done = subprocess.run(command, check=True, capture_output=True, timeout=peer_environment.SECONDS)
    measured = json.loads(done.stdout)
    return {
        name: {
            "encoding_mb_per_s_of_a_core": round(_megabytes(held_out) / each["seconds"], 2),
            "bytes_per_token": _by_language(held_out, each["tokens"]),
        }
        for name, each in measured.items()
    }


if __name__ == "__main__":
    sys.exit(entry.run("python -m benchmarks.tokenizer", main))
