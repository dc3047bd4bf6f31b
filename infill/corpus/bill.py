"""The bill of the training data in CycloneDX 1.6: the corpus, and each repository in it with licences and commits.

It is the same for the same corpus: the serial number is a hash of the content, and the time is that of the latest
commit, or of the year 1980 where no commit is known.
"""

import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from infill import __version__
from infill.artifacts.corpus import BILL_FILE
from infill.errors import InputError

PREFIX: Final = "infill:"
"""Of the names of our properties."""
CORPUS: Final = "corpus"
"""The reference of the corpus within the bill."""
_NAMESPACE: Final = uuid.UUID("6f1f6c0e-3a0b-5c1e-9d58-6d2f9a3c7b10")
"""Of the serial numbers (RFC 4122, version 5)."""
_UNDATED: Final = "1980-01-01T00:00:00Z"


def render(report: Mapping[str, Any]) -> str:
    """Return the bill as JSON. `report` is a corpus's: `by_repository`, `commits` and the counts are read."""
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.tool import ToolRepository
    from cyclonedx.output.json import JsonV1Dot6
    from cyclonedx.schema.schema import SchemaVersion1Dot6

    frame = Bom()
    frame.metadata.component = _corpus(report)
    frame.metadata.timestamp = datetime.fromisoformat(_date(report)).astimezone(UTC)
    frame.metadata.tools = ToolRepository(components=[_tool()])
    frame.serial_number = _NAMESPACE
    value = json.loads(JsonV1Dot6(frame).output_as_string())
    # The library needs hours to check 100,000 components against each other, so each is written alone.
    components = [_repository(name, entry) for name, entry in sorted(report["by_repository"].items())]
    refs = [component.bom_ref.value for component in components]
    value["components"] = [json.loads(component.as_json(view_=SchemaVersion1Dot6)) for component in components]
    value["dependencies"] = [{"ref": CORPUS, "dependsOn": refs}, *({"ref": ref} for ref in refs)]
    if not refs:
        del value["components"], value["dependencies"]
    value["serialNumber"] = uuid.uuid5(_NAMESPACE, json.dumps(value, sort_keys=True)).urn
    return json.dumps(value, indent=1, sort_keys=True) + "\n"


def _date(report: Mapping[str, Any]) -> str:
    return max((entry["date"] for entry in report.get("commits", {}).values() if entry["date"]), default=_UNDATED)


def _tool() -> Any:
    from cyclonedx.model.component import Component, ComponentType

    return Component(name="infill", version=__version__, type=ComponentType.APPLICATION)


def _corpus(report: Mapping[str, Any]) -> Any:
    from cyclonedx.model.component import Component, ComponentType

    names = [name for name in ("documents_kept", "documents_removed", "bytes_kept", "repositories") if name in report]
    return Component(
        name="training corpus",
        type=ComponentType.DATA,
        bom_ref=CORPUS,
        properties=_properties((name, str(report[name])) for name in names),
    )


def _repository(name: str, entry: Mapping[str, Any]) -> Any:
    from cyclonedx.model.component import Component, ComponentType

    facts = [(name, str(entry[name])) for name in ("documents", "bytes") if name in entry]
    facts += [(kind, value) for kind, column in _LISTS.items() for value in entry[column]]
    commits = entry["commits"]
    return Component(
        name=name,
        type=ComponentType.DATA,
        bom_ref=f"repository:{name}",
        version=commits[0] if len(commits) == 1 else None,
        licenses=_licences(entry["licences"]),
        properties=_properties(facts),
    )


_LISTS: Final = {"licence": "licences", "split": "splits", "source": "sources", "commit": "commits"}
"""Property -> what the report calls its values."""


def _licences(expressions: Sequence[str]) -> Any:
    """Return the licences of all documents of a repository as one SPDX expression."""
    from cyclonedx.model.license import LicenseExpression

    if not expressions:
        return []
    together = " AND ".join(expressions if len(expressions) == 1 else map(_in_brackets, expressions))
    return [LicenseExpression(together)]


def _in_brackets(expression: str) -> str:
    return f"({expression})" if " " in expression else expression


def _properties(facts: Iterable[tuple[str, str]]) -> Any:
    from cyclonedx.model import Property

    return [Property(name=f"{PREFIX}{name}", value=value) for name, value in facts]


def repositories(value: Any) -> list[dict[str, Any]]:
    """Return the repositories of a bill that `render` wrote, as `lineage.repositories` does. Raises InputError."""
    try:
        return [_read(component) for component in value["components"]]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{BILL_FILE} is not a bill of training data: {error!r}; write it again") from error


def _read(component: Mapping[str, Any]) -> dict[str, Any]:
    facts: dict[str, list[str]] = {}
    for item in component["properties"]:
        facts.setdefault(item["name"].removeprefix(PREFIX), []).append(item["value"])
    return {
        "repository": component["name"],
        "documents": int(facts["documents"][0]),
        "splits": facts.get("split", []),
        "licences": facts.get("licence", []),
        "commit": component.get("version", ""),
    }


def of_model(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return the bill of a model's training data; `rows` are those of `lineage.repositories` for its corpora."""
    merged: dict[str, dict[str, Any]] = {}
    for row in rows:
        entry = merged.setdefault(row["repository"], {"documents": 0, **{name: set() for name in _LISTS.values()}})
        entry["documents"] = max(entry["documents"], row["documents"])
        entry["licences"].update(row["licences"])
        entry["splits"].update(row["splits"])
        entry["commits"].update([row["commit"]] if row["commit"] else [])
    listed = {
        name: entry | {column: sorted(entry[column]) for column in _LISTS.values()} for name, entry in merged.items()
    }
    documents = sum(entry["documents"] for entry in listed.values())
    return render({"by_repository": listed, "documents_kept": documents, "repositories": len(listed)})
