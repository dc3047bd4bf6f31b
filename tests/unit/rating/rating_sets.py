"""A rating set from preferences with code that tries to become part of the page."""

from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from infill.artifacts.preferences import SCHEMA, write_pairs
from infill.rating.rating_items import RatingConfig, of_pairs
from tests import builders

HOSTILE: Final = "<img src=x onerror=alert(1)>"
BEFORE: Final = "".join(f"value_{number} = {number}\n" for number in range(80))


def pair(number: int, chosen: str, rejected: str) -> dict[str, Any]:
    return {
        **{name: "" for name in SCHEMA.names if SCHEMA.field(name).type == pa.string()},
        "id": f"{number:04d}-truth",
        "repo": "team/shapes",
        "path": f"shapes/{HOSTILE}.py",
        "language": "python",
        "prefix": f"{BEFORE}def area_{number}(size):\n    ",
        "suffix": f"\n\n\ndef next_{number}():  # {HOSTILE}\n    pass\n",
        "context": [],
        "chosen": chosen,
        "rejected": rejected,
        "judge": "rules",
        "rejected_finished": True,
        "score_chosen": 1.0,
        "score_rejected": 0.2,
    }


def preferences(folder: Path, count: int) -> str:
    """Write preferences with `count` pairs that differ and one that does not."""
    rows = [pair(number, f"return size * {number}", f"pass  # {HOSTILE}") for number in range(count)]
    rows.append(pair(count, "return size", " return size\n"))

    def body() -> dict[str, float]:
        write_pairs(str(folder / "preferences"), pa.Table.from_pylist(rows, SCHEMA))
        return {}

    builders.once(stage="preferences", output=str(folder / "preferences"), body=body)
    return str(folder / "preferences")


def build(folder: Path, count: int = 6) -> Path:
    of_pairs(RatingConfig(), preferences(folder, count), str(folder / "rating"))
    return folder / "rating"
