"""Measure the corpus stage; the last line is one JSON object.

    python -m benchmarks.corpus [--quick] [--megabytes N] [--source URI] [--no-peers]

Signatures for near-deduplication next to datatrove's, datasketch's and rensa's, on the same files in the same run, with
the same n-grams and number of permutations, each on one core; and the whole stage, with the time of its steps. Times
are processor time. The peers are installed by pip into an environment of their own in the user's cache.
"""

import functools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from benchmarks import corpus_peers, peer_environment
from infill import entry, manifest, storage
from infill.cli_options import absolute_source, integer
from infill.config import CorpusConfig
from infill.corpus import benchmarks, datasheet, decide, dedup, licences, quality, shards, signals, sources
from infill.stages import execute

REQUIREMENTS: Final = (
    "datasketch==2.0.0",
    "datatrove==0.10.1",
    "numpy<3",
    "regex",
    "rensa==0.5.0",
    "spacy==3.8.18",
    "tokenizers",
    "xxhash<4",
)
ONE_CORE: Final = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "RAYON")}
STEPS: Final[Sequence[tuple[str, Any, str]]] = (
    ("list and licences of repositories", sources, "listed"),
    ("read", quality, "read_text"),
    ("licence of the file", licences, "of_source"),
    ("signals of quality", signals, "measure"),
    ("exact digest", dedup, "digest"),
    ("signature", dedup, "sign"),
    ("secrets and personal data", shards, "redact"),
    ("benchmarks", benchmarks.Benchmarks, "overlap"),
    ("decide", decide, "decide"),
    ("verdicts", decide, "verdicts"),
    ("write", shards, "finish"),
    ("count for the report", datasheet, "summarise"),
    ("digests for the manifest", manifest, "_describe"),
)
"""Name of a step -> the function that does it."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = entry.Parser(prog="python -m benchmarks.corpus", description="The corpus stage and its peers.")
    parser.add_argument("--quick", action="store_true", help="0.5 MB for the signatures, 8 MB for the stage")
    amount = integer("megabytes", 1)
    parser.add_argument(
        "--megabytes", type=amount, default=80, metavar="N", help="size of the stage's input; default: 80"
    )
    parser.add_argument("--source", type=absolute_source, default="packages:", metavar="URI", help="default: packages:")
    parser.add_argument("--no-peers", action="store_true", help="install and measure no peer")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        stage = whole(options.source, Path(folder), 8_000_000 if options.quick else 1_000_000 * options.megabytes)
        texts = sample(Path(folder), 500_000 if options.quick else 8_000_000)
        signatures = {"infill": _rate(texts, _ours(texts))}
        for name in () if options.no_peers else corpus_peers.PEERS:
            signatures[name] = _rate(texts, _peer(name, texts, Path(folder)))
            print(f"{name}: {signatures[name]} MB/s", flush=True)
    ratios = {name: round(signatures["infill"] / rate, 1) for name, rate in signatures.items() if name != "infill"}
    print(json.dumps({"signatures_mb_per_s": signatures, "times_as_fast_as": ratios, "stage": stage}))


# The whole stage


def whole(source: str, folder: Path, limit: int) -> dict[str, Any]:
    """Build a corpus of at most `limit` bytes below `folder`; its rate on a core, and the seconds of each step."""
    dedup.sign(b"one two three four five six")  # compiles the loops where nothing is compiled yet
    config = CorpusConfig(sources=(source,), max_total_bytes=limit)
    seconds: dict[str, float] = defaultdict(float)
    with ExitStack() as stack:
        for name, home, function in STEPS:
            stack.enter_context(_timed(home, function, functools.partial(_add, seconds, name)))
        started = time.process_time()
        metrics = execute("corpus", config, {}, "", output=str(folder / "corpus")).metrics
        total = time.process_time() - started
    seconds["other"] = total - sum(seconds.values())
    return {
        "mb_read": round(metrics["bytes_read"] / 1e6, 1),
        "mb_per_s_of_a_core": round(metrics["bytes_read"] / 1e6 / total, 2),
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_000),
        "documents": metrics["documents_kept"],
        "removed": {name: value for name, value in metrics.items() if name.startswith("removed_")},
    }


def _add(seconds: dict[str, float], name: str, value: float) -> None:
    seconds[name] += value


@contextmanager
def _timed(home: Any, name: str, add: Callable[[float], None]) -> Iterator[None]:
    """Tell `add` the processor seconds of each call of `home.name` in its thread; of an iterator, until it ends."""
    function = getattr(home, name)

    @functools.wraps(function)
    def timed(*args: Any, **kwargs: Any) -> Any:
        started = time.thread_time()
        result = function(*args, **kwargs)
        if isinstance(result, Iterator):
            result = iter(list(result))
        add(time.thread_time() - started)
        return result

    setattr(home, name, timed)
    try:
        yield
    finally:
        setattr(home, name, function)


# Signatures


def sample(folder: Path, limit: int) -> list[str]:
    """Documents of the corpus below `folder`, spread over it, of about `limit` bytes."""
    column = storage.read_table(str(folder / "corpus" / "documents"), ["content"])["content"]
    contents = [str(text) for text in column.to_pylist()]
    step = max(1, sum(map(len, contents)) // limit)
    return contents[::step]


def _rate(texts: Sequence[str], seconds: float) -> float:
    return round(sum(len(text.encode()) for text in texts) / 1e6 / seconds, 3)


def _ours(texts: Sequence[str]) -> float:
    contents = [text.encode() for text in texts]
    dedup.sign(contents[0])
    started = time.process_time()
    for content in contents:
        dedup.sign(content)
    return time.process_time() - started


def _peer(name: str, texts: Sequence[str], folder: Path) -> float:
    file = folder / "texts.jsonl"
    file.write_text("".join(json.dumps(text) + "\n" for text in texts), encoding="utf-8")
    command = [peer_environment.python("corpus", REQUIREMENTS), corpus_peers.__file__, name, str(file)]
    one_core = {**os.environ, **ONE_CORE}
    done = subprocess.run(command, check=True, capture_output=True, timeout=peer_environment.SECONDS, env=one_core)
    return float(json.loads(done.stdout.strip().rpartition(b"\n")[2])["seconds"])


if __name__ == "__main__":
    sys.exit(entry.run("python -m benchmarks.corpus", main))
