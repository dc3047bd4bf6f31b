"""Manifests: the record of a stage's inputs and outputs that makes a folder an artifact.

`manifest.json` is written last, so its presence means that the folder is complete. Its key is the hash of the stage,
its version, its configuration and the digests of its inputs; the folder's address in the store is derived from the key.
This gives resume after a kill, one cache for laptop and cluster, and lineage.

Artifacts can be moved and copied: the manifest in the artifact's folder has the URI ".". A manifest that travels
without its folder, and a record about another artifact, contain an absolute URI; a record also has the path from its
own folder to the artifact (`pointer`), which is tried first (`follow`): docs/adr/0009.
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

FILE_NAME: Final = storage.LAST
HERE: Final = "."
"""The URI in a manifest that is in the artifact's own folder."""
SCRATCH: Final = "scratch"
"""Folder inside a stage's output with files that only a resumed run needs; it is not part of the artifact."""
REPORT_FILE: Final = "report.json"
"""File with a stage's figures for people, in any artifact (`write_report`, `read_report`)."""
HISTORY_FILE: Final = "history.jsonl"
SAMPLES_FILE: Final = "samples.jsonl"
CARD_FILE: Final = "README.md"
CARD_FACTS_FILE: Final = "card.json"
HANGS_FOLDER: Final = "logs"
LOGS: Final = (HISTORY_FILE, SAMPLES_FILE, CARD_FILE, CARD_FACTS_FILE, f"{HANGS_FOLDER}/")
"""Files and folders that record when and how fast a stage ran: part of an artifact, not of its identity."""
EXECUTION: Final = "execution"
"""Metadata of a field that sets where or how fast a stage runs, not its result: not part of a key."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    stage: str
    version: int
    key: str
    """Hash of stage, version, configuration and inputs."""
    uri: str
    """The folder with the files; absolute once the manifest is loaded."""
    config: dict[str, Any]
    inputs: dict[str, str]
    """Digest of each input, by name."""
    files: dict[str, dict[str, Any]]
    """{"sha256", "bytes"} of each file, by its path relative to `uri`."""
    metrics: dict[str, float]
    commit: str
    created: str
    seconds: float
    """Wall time of the run that finished the artifact."""

    @property
    def digest(self) -> str:
        """SHA-256 of stage, key and files except logs: the same for the same content, at any place and time."""
        files = {name: entry for name, entry in self.files.items() if not name.startswith(LOGS)}
        return _hash({"stage": self.stage, "key": self.key, "files": files})


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def config_dict(config: Any) -> dict[str, Any]:
    """Return a configuration as JSON values: nested dictionaries and lists."""
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    return plain


def decisive(config: Any) -> dict[str, Any]:
    """Return a configuration as `config_dict` does, without the fields marked EXECUTION (docs/adr/0004)."""
    plain = config_dict(config)
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if item.metadata.get(EXECUTION):
            del plain[item.name]
        elif dataclasses.is_dataclass(value):
            plain[item.name] = decisive(value)
    return plain


def key(stage: str, version: int, config: Any, inputs: Mapping[str, str]) -> str:
    """Return the key of the result of `stage` for `config` and the digests `inputs`: 24 hexadecimal digits."""
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
    """Return the manifest at `uri`, as `find` does. Raises InputError when there is none."""
    manifest = find(uri)
    if manifest is None and not storage.exists(uri):
        raise InputError(f"{uri} is not a finished artifact: there is nothing at that address; check it")
    if manifest is None:
        raise InputError(f"{uri} is not a finished artifact: it has no {FILE_NAME}; run the stage that makes it first")
    return manifest


def write_report(folder: str, report: Mapping[str, Any]) -> None:
    """Write a stage's figures into the artifact at `folder`."""
    storage.write_json(storage.join(folder, REPORT_FILE), report)


def read_report(folder: str) -> dict[str, Any]:
    """Return a stage's figures from the artifact at `folder`."""
    report: dict[str, Any] = storage.read_json(storage.join(folder, REPORT_FILE))
    return report


def newest(store: Path, stage: str, file: str = FILE_NAME) -> str | None:
    """Return the newest `file` in the artifacts of `stage` in a local store; None when there is none.

    The file's `created` field decides, since copying changes a file's time; within one second the file's time decides.
    """

    def age(path: Path) -> tuple[str, int]:
        return storage.read_json(str(path))["created"], path.stat().st_mtime_ns

    path = max((store / stage).glob(f"*/{file}"), key=age, default=None)
    return None if path is None else str(path)


def digest_of(uri: str) -> str:
    """Return the digest of the finished artifact at `uri`. Raises InputError as `load` does."""
    return load(uri).digest


def check(manifest: Manifest) -> None:
    """Raise InputError when a file of the artifact is missing or has another size; logs may be missing."""
    sizes = storage.sizes(manifest.uri)
    for name, entry in manifest.files.items():
        if name.startswith(LOGS) or sizes.get(name) == entry["bytes"]:
            continue
        trouble = f"has {sizes[name]} of {entry['bytes']} bytes" if name in sizes else "is missing"
        raise InputError(
            f"the {manifest.stage} artifact at {manifest.uri} is incomplete: {name} {trouble};"
            " copy the whole folder again, or delete it and run its stage again"
        )


def fetch(uri: str) -> Path:
    """Return a local folder with the files of the artifact at `uri`; a folder without a manifest is not checked.

    Raises InputError when a file of the artifact is missing.
    """
    manifest = find(uri)
    if manifest is not None:
        check(manifest)
    return storage.fetch(uri if manifest is None else manifest.uri)


def pointer(name: str, uri: str, folder: str) -> dict[str, str]:
    """Return the fields of a record in `folder` with the location of the artifact `name`; `follow` reads them."""
    uri = storage.absolute(uri)
    return {f"{name}_uri": uri, f"{name}_path": storage.relative(uri, storage.absolute(folder))}


def follow(record: Mapping[str, Any], name: str, folder: str) -> str:
    """Return the URI of the artifact `name` that a record in `folder` points to.

    If record and artifact were moved or copied together, it is the artifact next to the record, even if that has lost
    files: the original is not used silently. A record that was copied alone points to the original.
    """
    uri, path = str(record.get(f"{name}_uri", "")), str(record.get(f"{name}_path", ""))
    beside = storage.follow(storage.absolute(folder), path) if path else uri
    if beside == uri:
        return uri
    manifest, digest = find(beside), record.get(f"{name}_digest")
    if manifest is None and not storage.exists(beside):
        log.warning("there is no %s at %s next to the record; using the original at %s", name, beside, uri)
        return uri
    if manifest is not None and digest and manifest.digest != digest:
        log.warning("the %s at %s is not the one that the record names; using the original at %s", name, beside, uri)
        return uri
    return beside


def verify(manifest: Manifest) -> None:
    """Raise InputError when a file of the artifact is missing or differs from the manifest."""
    for name, entry in manifest.files.items():
        file = storage.join(manifest.uri, name)
        if storage.sha256(file) != entry["sha256"]:
            raise InputError(f"{file} is not the file that {manifest.stage} wrote; delete the folder and run it again")


def check_free(output: str, key: str) -> Manifest | None:
    """Return the manifest at `output`, or None. Raises InputError when it is of another artifact than `key`."""
    done = find(output)
    if done is not None and done.key != key:
        raise InputError(f"{output} already has another {done.stage} artifact (key {done.key}); choose another folder")
    return done


def once(
    *,
    stage: str,
    version: int,
    key: str,
    config: Any,
    inputs: Mapping[str, str],
    output: str,
    body: Callable[[], Mapping[str, float]],
) -> Manifest:
    """Run `body`, which fills the folder `output`, unless that folder is finished for `key`; return the manifest.

    The folder `scratch/` is removed when `body` has ended. Raises InputError when `output` holds another artifact.
    """
    output = storage.absolute(output)
    if done := check_free(output, key):
        return done
    started = time.monotonic()
    metrics = {name: float(value) for name, value in body().items()}
    storage.remove(storage.join(output, SCRATCH))
    manifest = Manifest(
        stage=stage,
        version=version,
        key=key,
        uri=HERE,
        config=config_dict(config),
        inputs=dict(inputs),
        files=_describe(output),
        metrics=metrics,
        commit=commit(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - started, 3),
    )
    storage.write_json(storage.join(output, FILE_NAME), dataclasses.asdict(manifest))
    return dataclasses.replace(manifest, uri=output)


def _describe(output: str) -> dict[str, dict[str, Any]]:
    root = len(storage.join(output, ""))
    return {
        file[root:]: {"sha256": storage.sha256(file), "bytes": storage.size(file)}
        for file in storage.list_files(output)
        if not Path(file).name.startswith(".")
    }


@cache
def commit() -> str:
    """Return the commit of this code: INFILL_COMMIT (set in images), else git's HEAD, else "unknown"."""
    if name := os.environ.get("INFILL_COMMIT"):
        return name
    try:
        command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=5).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
