"""The origin of an artifact: a model's corpora, their repositories, and the opt-outs that it predates.

Manifests hold the digests of a stage's inputs, and a model's card those of all its trainings, including those of an
adapter that was merged or trained further. The artifacts with these digests are searched for next to the model, in its
store, and in the places that the user names.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from infill import manifest, storage
from infill.artifacts import adapter
from infill.artifacts.corpus import BILL_FILE, DOCUMENTS
from infill.corpus import bill, records
from infill.corpus.opt_out import OptOutEntry, OptOuts
from infill.errors import InputError
from infill.manifest import Manifest

log: Final = logging.getLogger(__name__)
INPUTS: Final = ("corpus", "examples", "model", "preferences", "tokenizer")
"""Inputs that are artifacts with data in them; the others (sources, benchmarks, a base) are not artifacts.

Several inputs of one kind have numbers: `examples_0`."""
ADAPTERS: Final = ("adapter", "lora_start")
"""Inputs that are adapters; the settings have their places, the former at the top and the latter in `train`."""
BILL: Final = "bill"
"""In the place of a corpus's digest: the repository is known from a bill alone."""


@dataclass(kw_only=True)
class Lineage:
    """The artifacts that an artifact was made of."""

    uri: str
    created: str
    """Empty where there is no manifest."""
    artifacts: list[Manifest] = field(default_factory=list)
    missing: list[dict[str, str]] = field(default_factory=list)
    """Inputs whose artifacts were not found: `name`, `digest`, and `of`, the stage that read it."""
    bases: list[dict[str, str]] = field(default_factory=list)
    """Published models whose training data are not recorded: `name`, `licence`, `sha256`."""

    @property
    def corpora(self) -> list[Manifest]:
        """The corpora among the artifacts, the oldest first."""
        return sorted((each for each in self.artifacts if each.stage == "corpus"), key=lambda each: each.created)


def trace(model: str, stores: Sequence[str] = ()) -> Lineage:
    """Return the lineage of the model folder, adapter, deployment record or manifest `model`.

    `stores` are folders with artifacts, stores, or the folders of runs. Raises InputError when nothing at `model`
    records what it was made of.
    """
    start, card = _start(model)
    place = start.uri if start else model
    known = _index(place, start, stores)
    lineage = Lineage(uri=place, created=start.created if start else "")
    _add_base(lineage, card)
    queue = list(_inputs(start, card))
    visited = {start.digest} if start else set[str]()
    while queue:
        of, name, digest = queue.pop(0)
        if digest in visited:
            continue
        visited.add(digest)
        if (artifact := known.get(digest)) is None:
            lineage.missing.append({"name": name, "digest": digest, "of": of})
            continue
        lineage.artifacts.append(artifact)
        card = _card(artifact.uri)
        _add_base(lineage, card)
        queue += _inputs(artifact, card)
    if start:
        lineage.artifacts.insert(0, start)
    return lineage


def _start(model: str) -> tuple[Manifest | None, dict[str, Any]]:
    if storage.is_file(model) and not model.endswith(f"/{manifest.FILE_NAME}"):
        record = storage.read_json(model)
        if isinstance(record, Mapping) and "model_uri" in record:
            return _start(manifest.follow(record, "model", storage.parent(model)))
    start = manifest.find(model)
    card = _card(start.uri if start else model)
    if start is None and not card.get("trainings"):
        if not storage.exists(model):
            raise InputError(f"there is nothing at {model}; name a model folder")
        raise InputError(
            f"{model} does not tell what it was made of: it has neither {manifest.FILE_NAME} nor"
            f" {manifest.CARD_FACTS_FILE}; name a model folder that Infill wrote"
        )
    return start, card


def _card(uri: str) -> dict[str, Any]:
    """Return the facts of a model's card; empty where there is none."""
    for folder in (uri, storage.parent(uri)):
        if storage.exists(storage.join(folder, manifest.CARD_FACTS_FILE)):
            facts: dict[str, Any] = storage.read_json(storage.join(folder, manifest.CARD_FACTS_FILE))
            return facts
        if not storage.exists(storage.join(uri, adapter.SETTINGS_FILE)):  # else the model folder around it tells
            break
    return {}


def _inputs(artifact: Manifest | None, card: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield stage, name and digest of each input that is an artifact."""
    stated = [(artifact.stage, artifact.inputs)] if artifact else []
    stated += [(training["stage"], training.get("inputs", {})) for training in card.get("trainings", [])]
    stated += [("pretrain", card["data"])] if "data" in card else []
    for stage, inputs in stated:
        yield from ((stage, name, inputs[name]) for name in sorted(inputs) if name.partition("_")[0] in INPUTS)


def _add_base(lineage: Lineage, card: Mapping[str, Any]) -> None:
    base = card.get("base")
    if not base and "source" in card:
        base = {"source": card["source"], "licence": card.get("licence", "")}
    if base:
        entry = {"name": base["source"], "licence": base.get("licence", ""), "sha256": base.get("sha256", "")}
        if entry not in lineage.bases:
            lineage.bases.append(entry)


def _index(place: str, start: Manifest | None, stores: Sequence[str]) -> dict[str, Manifest]:
    """Return the artifacts that can be reached, by digest."""
    beside = storage.parent(place)
    folders = [beside, *stores]
    if start and storage.parent(beside) and beside.rpartition("/")[2] == start.stage:  # {store}/{stage}/{key}
        folders.append(storage.parent(beside))
    artifacts = [artifact for folder in folders for artifact in _artifacts(folder, deep=folder != beside)]
    return {artifact.digest: artifact for artifact in artifacts}


def _artifacts(folder: str, *, deep: bool) -> Iterator[Manifest]:
    """Yield the artifacts in a folder, and with `deep` those of a store or of a run."""
    candidates = [folder, *storage.list_folders(folder)]
    if deep:
        run = storage.join(folder, "store")
        stages = [*candidates[1:], *(storage.list_folders(run) if storage.exists(run) else [])]
        candidates += [each for stage in stages for each in storage.list_folders(stage)]
    for candidate in dict.fromkeys(candidates):
        if storage.is_file(storage.join(candidate, manifest.FILE_NAME)):
            try:
                yield manifest.load(candidate)
            except InputError as error:  # perhaps not one of the model's; if it is, the model's lineage is incomplete
                log.warning("%s is skipped: %s", candidate, error)


def explain(model: str, opt_outs: OptOuts, stores: Sequence[str] = ()) -> dict[str, Any]:
    """Return the corpora of `model`, their repositories, and the opt-outs that it predates.

    Artifacts that cannot be found are in `missing`; the repositories are then those of a bill next to the model. Raises
    InputError as `trace` does.
    """
    traced = trace(model, stores)
    result: dict[str, Any] = {
        "model": traced.uri,
        "created": traced.created,
        "complete": not traced.missing,
        "corpora": [
            {"uri": each.uri, "digest": each.digest, "created": each.created, "sources": each.config.get("sources", [])}
            for each in traced.corpora
        ],
        "repositories": repositories(traced.corpora),
        "opt_outs": predated(traced.corpora, opt_outs),
        "bases": traced.bases,
        "missing": traced.missing,
        "bills": [],
    }
    for place in _bills(traced) if traced.missing else ():
        listed = bill.repositories(storage.read_json(place))
        result["bills"].append(place)
        result["repositories"] += [row | {"corpus": BILL} for row in listed]
        result["opt_outs"] += [_of_bill(entry, listed) for entry in opt_outs.entries if _concerned(entry, listed)]
    return result


def _bills(traced: Lineage) -> Iterator[str]:
    """Yield the bills in the model's folder, and in those of the adapters that its trainings read."""
    folders = [traced.uri]
    for artifact in traced.artifacts:
        settings = artifact.config, artifact.config.get("train", {})
        for name, config in zip(ADAPTERS, settings, strict=True):
            if name in artifact.inputs and _adapter_digest(str(config.get(name, ""))) == artifact.inputs[name]:
                folders.append(str(config[name]))
    for folder in dict.fromkeys(folders):
        place = storage.join(folder, BILL_FILE)
        if storage.exists(place):
            yield place


def _adapter_digest(uri: str) -> str:
    """Return the digest of the adapter at `uri`; empty where there is none, or no longer."""
    try:
        return adapter.digest(uri) if uri else ""
    except InputError:
        return ""


def _concerned(entry: OptOutEntry, listed: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [row for row in listed if entry.covers_repository(row["repository"])]


def _of_bill(entry: OptOutEntry, listed: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return an opt-out that concerns repositories of a bill, which does not tell whether they have files at a path."""
    rows = _concerned(entry, listed)
    return {
        **_request(entry),
        "corpus": BILL,
        "documents": sum(row["documents"] for row in rows),
        "repositories": [row["repository"] for row in rows],
    }


def _request(entry: OptOutEntry) -> dict[str, str]:
    return {name: getattr(entry, name) for name in ("repository", "path", "reason", "date")}


# What is in the corpora


def repositories(corpora: Iterable[Manifest]) -> list[dict[str, Any]]:
    """Return the repositories of the corpora by name: corpus, documents by split, licences, commit."""
    result = []
    for corpus in corpora:
        entries: dict[str, dict[str, Any]] = {}
        for table in records.tables(corpus, DOCUMENTS, ["repo", "split", "licence", "commit"]):
            groups = table.group_by(["repo", "split", "licence", "commit"]).aggregate([([], "count_all")])
            for row in groups.to_pylist():
                entry = entries.setdefault(
                    row["repo"], {"splits": Counter(), "licences": set(), "commit": row["commit"] or ""}
                )
                entry["splits"][row["split"]] += row["count_all"]
                entry["licences"].add(row["licence"])
        result += [
            {
                "repository": name,
                "documents": entry["splits"].total(),
                "splits": dict(sorted(entry["splits"].items())),
                "licences": sorted(entry["licences"]),
                "commit": entry["commit"],
                "corpus": corpus.digest,
            }
            for name, entry in sorted(entries.items())
        ]
    return result


def covered(corpus: Manifest, entries: Sequence[OptOutEntry]) -> dict[OptOutEntry, Counter[str]]:
    """Return how many documents of each repository in `corpus` each entry covers."""
    counts = {entry: Counter[str]() for entry in entries}
    for table in records.tables(corpus, DOCUMENTS, ["repo", "path"]):
        names = table["repo"].unique().to_pylist()
        concerned = {entry: {name for name in map(str, names) if entry.covers_repository(name)} for entry in entries}
        wanted = set().union(*concerned.values())
        if not wanted:
            continue
        for row in table.to_pylist():
            if row["repo"] in wanted:
                for entry in entries:
                    if row["repo"] in concerned[entry] and entry.covers(row["repo"], row["path"]):
                        counts[entry][row["repo"]] += 1
    return {entry: count for entry, count in counts.items() if count}


def predated(corpora: Iterable[Manifest], opt_outs: OptOuts) -> list[dict[str, Any]]:
    """Return the opt-outs that cover documents of the corpora, so that these were built before the requests."""
    return [
        {
            **_request(entry),
            "corpus": corpus.digest,
            "documents": count.total(),
            "repositories": sorted(count),
        }
        for corpus in corpora
        for entry, count in covered(corpus, opt_outs.entries).items()
    ]
