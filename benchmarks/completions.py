"""Completions of many prompts, saved to a file as they arrive, so that a killed benchmark can resume."""

import argparse
import hashlib
import json
import logging
import os
import struct
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from infill import manifest, storage
from infill.cli_options import output_file
from infill.evaluate.generation import Generator, SampledCompletion
from infill.text import decode, split_lines

VERSION: Final = 2
"""Increased when other completions are made of the same prompts."""
CHUNK: Final = 48
"""Prompts between two saves, from the last of which a killed run resumes."""
log: Final = logging.getLogger(__name__)


def option(parser: argparse.ArgumentParser) -> None:
    """Add `--keep FILE`."""
    about = "save completions in FILE as they arrive, from which a killed run resumes"
    parser.add_argument("--keep", type=output_file, metavar="FILE", help=about)


def model_key(uri: str) -> str:
    """Return the digest of the model at `uri`, from its files' sizes and times if it has no manifest."""
    artifact = manifest.find(uri)
    return storage.fingerprint(uri) if artifact is None else artifact.digest


def complete(
    generator: Generator,
    prompts: Sequence[Sequence[int]],
    *,
    model: str,
    max_new_tokens: int,
    references: Sequence[str] | None = None,
    ends: bool = True,
    keep: Path | None = None,
) -> list[SampledCompletion]:
    """Return the greedy completion of each prompt, in order; reuse those in the file `keep` and add the others to it.

    `model` is the `model_key` of the generator's model, since the file may hold completions of several models and
    settings.
    """
    expected = references or [""] * len(prompts)
    pairs = zip(prompts, expected, strict=True)
    keys = [_key(f"{model} {ends}", max_new_tokens, prompt, reference) for prompt, reference in pairs]
    kept = _load(keep) if keep else {}
    missing = sorted((i for i, key in enumerate(keys) if key not in kept), key=lambda i: len(prompts[i]))
    log.info("%d of %d prompts are completed", len(keys) - len(missing), len(keys))
    for start in range(0, len(missing), CHUNK):
        chunk = missing[start : start + CHUNK]
        fresh = generator.complete(
            [prompts[i] for i in chunk],
            max_new_tokens=max_new_tokens,
            references=[expected[i] for i in chunk] if references else None,
            ends=ends,
        )
        rows = {keys[i]: completion for i, completion in zip(chunk, fresh, strict=True)}
        if keep:
            _append(keep, rows)
        kept |= rows
        log.info("%d of %d prompts are completed", len(keys) - len(missing) + start + len(chunk), len(keys))
    return [kept[key] for key in keys]


def _key(model: str, max_new_tokens: int, prompt: Sequence[int], reference: str) -> str:
    ids = struct.pack(f"<qq{len(prompt)}q", max_new_tokens, len(prompt), *prompt)
    texts = f"{VERSION}/{model}\0{reference}\0".encode(errors="surrogatepass")
    return hashlib.sha256(texts + ids).hexdigest()[:32]


def _load(file: Path) -> dict[str, SampledCompletion]:
    """Return the completions in `file` by key, without a line that was cut off."""
    kept: dict[str, SampledCompletion] = {}
    if file.exists():
        for line in split_lines(decode(file.read_bytes())):
            try:
                row: dict[str, Any] = json.loads(line)
            except ValueError:
                continue
            key = row.pop("key")
            kept[key] = SampledCompletion(**row)
    return kept


def _append(file: Path, rows: dict[str, SampledCompletion]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as lines:
        if lines.tell():
            lines.write("\n")  # end a line that was cut off
        lines.write("\n".join(json.dumps({"key": key} | asdict(row)) for key, row in rows.items()))
        lines.flush()
        os.fsync(lines.fileno())
