"""The report's section on `samples.jsonl`: completions of a few fixed holes during the trainings."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final

from infill.report import charts

Rows = Sequence[Mapping[str, Any]]

HOLES: Final = 2
"""Number of holes that are shown per training."""
TIMES: Final = 6
"""Number of completions that are shown per hole, including the first and the last."""
TITLES: Final = {
    "pretrain": "Pre-training, holes of held-out files",
    "sft": "Fine-tuning (SFT), held-out holes with context",
    "dpo": "Preferences (DPO), holes of pairs that are trained on",
}


def section(samples: Mapping[str, Rows]) -> str:
    """Return the section as HTML: each training's first holes with completions over tokens seen; "" without samples."""
    parts = [_training(TITLES[name], rows) for name, rows in samples.items() if rows]
    if not parts:
        return ""
    about = "Greedy completions of the same holes while the weights changed. The code that was cut out is marked."
    return "\n".join(["<h2>Learning to complete</h2>", f'<p class="soft">{about}</p>', *parts])


def _training(title: str, rows: Rows) -> str:
    holes = sorted({row["hole"] for row in rows})[:HOLES]
    shown = [_hole([row for row in rows if row["hole"] == hole]) for hole in holes]
    return "\n".join([f"<h3>{escape(title)}</h3>", *shown])


def _hole(rows: Rows) -> str:
    first = rows[0]
    answers = "".join(
        f"<div><small class='soft'>{charts.short(row['tokens'])} tokens</small>"
        f"<pre>{escape(row['completion']) or '<i class=soft>(nothing)</i>'}</pre></div>"
        for row in spread(rows, TIMES)
    )
    return (
        f"<article><header><code>{escape(first['path'])}</code></header>"
        f"<pre>{escape(first['before'])}<mark>{escape(first['expected'])}</mark>{escape(first['after'])}</pre>"
        f'<div class="answers">{answers}</div></article>'
    )


def spread(rows: Rows, count: int) -> list[Mapping[str, Any]]:
    """Return at most `count` of `rows`, evenly spaced, including the first and the last."""
    if len(rows) <= count:
        return list(rows)
    return [rows[round(place * (len(rows) - 1) / (count - 1))] for place in range(count)]
