"""MinHash signatures by a peer, in an environment of its own: processor seconds as one JSON line.

    python corpus_peers.py PEER FILE

FILE holds one text as a JSON string a line. All peers sign sets of 5-grams with PERMUTATIONS permutations, on one core.
This script imports nothing of Infill.
"""

import json
import re
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

BANDS, ROWS, WORDS = 51, 5, 5
PERMUTATIONS: Final = BANDS * ROWS
_WORD: Final = re.compile(r"\w+")


def _shingles(text: str) -> set[bytes]:
    words = _WORD.findall(text)
    return {" ".join(words[place : place + WORDS]).encode() for place in range(len(words) - WORDS + 1)}


def datatrove() -> Callable[[str], Any]:
    """Its MinhashDedupSignature as it comes, with spaCy's English words."""
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature

    config = MinhashConfig(n_grams=WORDS, num_buckets=BANDS, hashes_per_bucket=ROWS)
    step = MinhashDedupSignature(output_folder=tempfile.mkdtemp(), config=config)

    def sign(text: str) -> Any:
        shingles = step.get_shingles(text)
        return step.get_signature(shingles) if shingles.size else None

    return sign


def datasketch() -> Callable[[str], Any]:
    """MinHash.update_batch, with the faster of its hash functions that are available."""
    from datasketch import MinHash
    from xxhash import xxh32_intdigest

    def sign(text: str) -> Any:
        signature = MinHash(num_perm=PERMUTATIONS, hashfunc=xxh32_intdigest)
        signature.update_batch(_shingles(text))
        return signature.hashvalues

    return sign


def rensa() -> Callable[[str], Any]:
    """RMinHash (Rust)."""
    from rensa import RMinHash

    def sign(text: str) -> Any:
        signature = RMinHash(num_perm=PERMUTATIONS, seed=1)
        signature.update(list(_shingles(text)))
        return signature.digest()

    return sign


PEERS: Final = {"datasketch": datasketch, "datatrove": datatrove, "rensa": rensa}


def main() -> None:
    name, file = sys.argv[1:]
    texts = [json.loads(line) for line in Path(file).read_bytes().split(b"\n") if line]
    sign = PEERS[name]()
    sign(texts[0])
    started = time.process_time()
    for text in texts:
        sign(text)
    print(json.dumps({"seconds": time.process_time() - started}))


if __name__ == "__main__":
    main()
