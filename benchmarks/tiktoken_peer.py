"""Tokens of each text in tiktoken's encodings, in an environment of its own: one JSON object by encoding.

    python tiktoken_peer.py FILE

FILE holds one text as a JSON string a line. This script imports nothing of Infill.
"""

import json
import sys
import time
from pathlib import Path
from typing import Final

ENCODINGS: Final = ("cl100k_base", "o200k_base")


def main() -> None:
    import bpe_openai

    (file,) = sys.argv[1:]
    texts = [json.loads(line) for line in Path(file).read_bytes().split(b"\n") if line]
    result = {}
    for name in ENCODINGS:
        encoding = bpe_openai.get_encoding(name)
        encoding.encode_ordinary("x")
        started = time.process_time()
        tokens = [len(encoding.encode_ordinary(text)) for text in texts]
        result[name] = {"tokens": tokens, "seconds": time.process_time() - started}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
