"""What a stage read and wrote: the record that makes a folder an artifact.

`manifest.json` is written last, so its presence means that the folder is complete. Its key is the hash of the stage,
its version, its configuration and the digests of its inputs; the folder's address in the store is derived from the key.
That gives resume after a kill, one cache for laptop and cluster, and lineage.

An artifact is where it is found: its own manifest says "." for the folder, so it may be moved and copied. A manifest
that travels without its folder, and a record about another artifact, name that by its absolute URI; a record also says
where the other lies from its own folder (`pointer`), which is looked at first (`follow`): docs/adr/0009.
"""

import dataclasses
import hashlib
import json
import logging
import os
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Final

from infill import storage
from infill.errors import InputError

log = logging.getLogger(__name__)

FILE_NAME: Final = "manifest.json"
HERE: Final = "."
"""The URI in a manifest that lies in the artifact's own folder."""
SCRATCH: Final = "scratch"
"""A folder of this name inside a stage's output holds what only a resumed run needs; it is no part of the artifact."""
LOGS: Final = ("history.jsonl", "samples.jsonl", "README.md", "card.json", "logs/")
"""Files and folders that tell when and how fast: part of an artifact, not of its identity."""
EXECUTION: Final = "execution"
"""Metadata of a configuration's field that says where or how fast a stage runs, not what it makes: no part of a key."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    stage: str
    version: int
    key: str
    """Hash of what made the artifact: stage, version, configuration, inputs."""
    uri: str
    """The folder with the files, absolute once the manifest is loaded."""
    config: dict[str, Any]
    inputs: dict[str, str]
    """Name of an input -> its digest."""
    files: dict[str, dict[str, Any]]
    """Path relative to `uri` -> {"sha256", "bytes"}."""
    metrics: dict[str, float]
    commit: str
    created: str
    seconds: float
    """Wall time of the run that finished it."""

    @property
    def digest(self) -> str:
        """SHA-256 over stage, key and files but logs: equal for equal content, wherever and whenever it was made."""
        files = {name: entry for name, entry in self.files.items() if not name.startswith(LOGS)}
        return _hash({"stage": self.stage, "key": self.key, "files": files})


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def config_dict(config: Any) -> dict[str, Any]:
    """A configuration as JSON gives it back: nested dictionaries and lists."""
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    return plain


def decisive(config: Any) -> dict[str, Any]:
    """As `config_dict`, without the fields whose metadata say EXECUTION (docs/adr/0004)."""
    plain = config_dict(config)
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if item.metadata.get(EXECUTION):
            del plain[item.name]
        elif dataclasses.is_dataclass(value):
            plain[item.name] = decisive(value)
    return plain


def key(stage: str, version: int, config: Any, inputs: Mapping[str, str]) -> str:
    """The key of what `stage` makes of `config` and the digests `inputs`: 24 hexadecimal digits."""
    return _hash({"stage": stage, "version": version, "config": decisive(config), "inputs": dict(inputs)})[:24]


def find(uri: str) -> Manifest | None:
    """Return the manifest at `uri` (an artifact's folder, or a manifest's file); None when there is none.

    Raises InputError when the file is damaged.
    """
    uri = storage.absolute(uri)
    file = uri if storage.is_file(uri) else storage.join(uri, FILE_NAME)
    if not storage.exists(file):
        return None
    value = storage.read_json(file)
    try:
        manifest = Manifest(**value)
    except TypeError as error:
        raise InputError(
            f"{file} is not a manifest of this version of Infill ({error}); run its stage again"
        ) from error
    own = manifest.uri == HERE or file.endswith(f"/{FILE_NAME}")
    return dataclasses.replace(manifest, uri=storage.parent(file)) if own else manifest


def load(uri: str) -> Manifest:
    """As `find`, but raises InputError when there is none."""
    found = find(uri)
    if found is None and not storage.exists(uri):
        raise InputError(f"{uri} is not a finished artifact: there is nothing at that address; check it")
    if found is None:
        raise InputError(f"{uri} is not a finished artifact: it has no {FILE_NAME}; run the stage that makes it first")
    return found


def newest(store: Path, stage: str, file: str = FILE_NAME) -> str | None:
    """Return the newest `file` in the artifacts of `stage` in a local store; None when there is none.

    What the file says counts, since a copy has the time of copying; the file's time decides within a second.
    """

    def age(path: Path) -> tuple[str, int]:
        return storage.read_json(str(path))["created"], path.stat().st_mtime_ns

    path = max((store / stage).glob(f"*/{file}"), key=age, default=None)
    return None if path is None else str(path)


def digest_of(uri: str) -> str:
    """The digest of the finished artifact at `uri`."""
    return load(uri).digest


def check(manifest: Manifest) -> None:
    """Raise InputError when a file of the artifact is missing or has another size; logs may be missing."""
    sizes = storage.sizes(manifest.uri)
    for name, entry in manifest.files.items():
        if name.startswith(LOGS) or sizes.get(name) == entry["bytes"]:
            continue
        trouble = f"has {sizes[name]} of {entry['bytes']} bytes" if name in sizes else "is missing"
        raise InputError(
            f"the {manifest.stage} artifact at {manifest.uri} is not whole: {name} {trouble};"
            " copy the whole folder again, or delete it and run its stage again"
        )


def fetch(uri: str) -> Path:
    """Return a local folder with the files of the artifact at `uri`; a folder without a manifest is taken as it is.

    Raises InputError when a file of the artifact is missing.
    """
    manifest = find(uri)
    if manifest is not None:
        check(manifest)
    return storage.fetch(uri if manifest is None else manifest.uri)


def pointer(name: str, uri: str, folder: str) -> dict[str, str]:
    """Return the fields of a record in `folder` that say where the artifact `name` is; `follow` reads them."""
    uri = storage.absolute(uri)
    return {f"{name}_uri": uri, f"{name}_path": storage.relative(uri, storage.absolute(folder))}


def follow(record: Mapping[str, Any], name: str, folder: str) -> str:
    """Return the URI of the artifact `name` that a record, which now lies in `folder`, points to.

    Where record and artifact were moved or copied together it is the one beside the record, even if that has lost
    files: the original is not used unasked. A record that was copied alone points to the original.
    """
    uri, path = str(record.get(f"{name}_uri", "")), str(record.get(f"{name}_path", ""))
    beside = storage.follow(storage.absolute(folder), path) if path else uri
    if beside == uri:
        return uri
    manifest, digest = find(beside), record.get(f"{name}_digest")
    if manifest is None and not storage.exists(beside):
        log.warning("there is no %s at %s beside the record; taking the original at %s", name, beside, uri)
        return uri
    if manifest is not None and digest and manifest.digest != digest:
        log.warning("the %s at %s is not the one that the record names; taking the original at %s", name, beside, uri)
        return uri
    return beside


def verify(manifest: Manifest) -> None:
    """Raise InputError when a file of the artifact is missing or differs from what the manifest says."""
    for name, entry in manifest.files.items():
        file = storage.join(manifest.uri, name)
        if storage.sha256(file) != entry["sha256"]:
            raise InputError(f"{file} is not the file that {manifest.stage} wrote; delete the folder and run it again")


def once(
    *,
    stage: str,
    version: int,
    config: Any,
    inputs: Mapping[str, str],
    output: str,
    body: Callable[[], Mapping[str, float]],
    observed: Mapping[str, str] | None = None,
) -> dict[str, float]:
    """Run `body`, which fills the folder `output`, unless that folder is finished for the same key; return the metrics.

    `observed` is the state of the world that the result depends on beyond its inputs: it is recorded beside them, but
    is no part of the key, since the address of a result is known before it is looked at.

    What `body` left below `scratch/` is removed when it has ended. Raises InputError when the folder holds something
    else.
    """
    output = storage.absolute(output)
    wanted = key(stage, version, config, inputs)
    done = find(output)
    if done is not None:
        if done.key != wanted:
            raise InputError(f"{output} holds another {done.stage} artifact (key {done.key}); choose another folder")
        return done.metrics
    started = time.monotonic()
    metrics = {name: float(value) for name, value in body().items()}
    storage.remove(storage.join(output, SCRATCH))
    manifest = Manifest(
        stage=stage,
        version=version,
        key=wanted,
        uri=HERE,
        config=config_dict(config),
        inputs={**inputs, **(observed or {})},
        files=_describe(output),
        metrics=metrics,
        commit=commit(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - started, 3),
    )
    storage.write_json(storage.join(output, FILE_NAME), dataclasses.asdict(manifest))
    return metrics


def _describe(output: str) -> dict[str, dict[str, Any]]:
    root = len(storage.join(output, ""))
    return {
        file[root:]: {"sha256": storage.sha256(file), "bytes": storage.size(file)}
        for file in storage.list_files(output)
        if not Path(file).name.startswith(".")
    }


@cache
def commit() -> str:
    """The commit of this code: INFILL_COMMIT (set in images), else git's word, else "unknown"."""
    if given := os.environ.get("INFILL_COMMIT"):
        return given
    try:
        command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=5).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
