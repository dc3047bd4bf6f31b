"""The picture of the architecture, `docs/images/architecture.svg`, drawn from the tables below.

`python -m tools.architecture` writes it.
"""

import sys
from pathlib import Path
from typing import Final, NamedTuple
from xml.sax.saxutils import escape

from infill import entry

PROGRAM: Final = "python -m tools.architecture"
FILE: Final = Path(__file__).parents[1] / "docs" / "images" / "architecture.svg"
WIDTH: Final = 1_040
HEIGHT: Final = 470
ROW: Final = 46
STAGE_WIDTH: Final = 108
GAP: Final = 14


class Box(NamedTuple):
    """A box with a title and one line about it."""

    x: float
    y: float
    width: float
    height: float
    title: str
    about: str
    kind: str


class Arrow(NamedTuple):
    """An arrow through `points`, with an optional label."""

    points: tuple[tuple[float, float], ...]
    label: str = ""


TRAINING: Final = (
    ("corpus", "licences, splits"),
    ("tokenizer", "BPE, prompt format"),
    ("pretrain", "or a base model"),
    ("examples", "holes with context"),
    ("SFT", "on the middles"),
    ("preferences", "judged pairs"),
    ("DPO", "better over worse"),
    ("evaluate", "held-out holes"),
)
LEFT: Final = 34.0
TOP: Final = 84.0
STYLE: Final = """
  text { font-family: system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif; fill: #1f2937 }
  .title { font-size: 13.5px; font-weight: 600 }
  .about { font-size: 10.5px; fill: #4b5563 }
  .label { font-size: 11px; fill: #4b5563 }
  .heading { font-size: 12.5px; font-weight: 600; fill: #4338ca }
  .frame { fill: #f8fafc; stroke: #cbd5e1 }
  .stage { fill: #eef2ff; stroke: #6366f1 }
  .server { fill: #ecfdf5; stroke: #10b981 }
  .shared { fill: #fff7ed; stroke: #f59e0b }
  .outside { fill: #ffffff; stroke: #64748b; stroke-dasharray: 4 3 }
  .arrow { fill: none; stroke: #475569; stroke-width: 1.4; marker-end: url(#head) }
"""


def boxes() -> list[Box]:
    """Return all boxes, first the stages of the training from left to right."""
    stages = [
        Box(LEFT + number * (STAGE_WIDTH + GAP), TOP, STAGE_WIDTH, ROW, title, about, "stage")
        for number, (title, about) in enumerate(TRAINING)
    ]
    return [
        *stages,
        Box(LEFT, 176, 474, ROW, "store", "every artifact at {stage}/{key}, manifest last; a folder or S3", "outside"),
        Box(522, 176, 230, ROW, "MLflow", "runs, losses, samples, model registry", "outside"),
        Box(766, 176, 230, ROW, "gate, register, deploy", "champion against challenger", "stage"),
        Box(LEFT, 352, 150, ROW, "editor", "prefix, suffix, path", "outside"),
        Box(262, 352, 250, ROW, "transformer (KServe)", "ranks, packs, tokenises; no torch", "server"),
        Box(604, 352, 190, ROW, "predictor", "vLLM, or ours on a CPU", "server"),
        Box(862, 352, 134, ROW, "model", "weights by digest", "outside"),
        Box(
            262,
            262,
            532,
            38,
            "shared by both sides",
            "context engine, prompt format and layout, FIM splitter, metrics",
            "shared",
        ),
    ]


def arrows() -> list[Arrow]:
    """Return all arrows of the picture."""
    middle = TOP + ROW / 2
    step = STAGE_WIDTH + GAP
    chain = [
        Arrow(((LEFT + number * step + STAGE_WIDTH, middle), (LEFT + (number + 1) * step - 2, middle)))
        for number in range(len(TRAINING) - 1)
    ]
    return [
        *chain,
        Arrow(((250, TOP + ROW + 8), (250, 174))),
        Arrow(((637, TOP + ROW + 8), (637, 174))),
        Arrow(((942, TOP + ROW), (942, 174))),
        Arrow(((929, 222), (929, 350)), "pins one model"),
        Arrow(((184, 368), (260, 368)), "request"),
        Arrow(((260, 386), (186, 386)), "text"),
        Arrow(((512, 368), (602, 368)), "token ids"),
        Arrow(((602, 386), (514, 386)), "text"),
        Arrow(((860, 375), (796, 375))),
        Arrow(((387, 300), (387, 350))),
        Arrow(((528, 262), (528, 226))),
    ]


def draw() -> str:
    """Return the picture as SVG."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        'aria-label="Infill: stages from source code to a deployed model, and a request from an editor to the model">',
        f"<style>{STYLE}</style>",
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 L8 4 L0 8 z" fill="#475569"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        _frame(
            18,
            40,
            1_004,
            204,
            58,
            "One compiled Kubeflow pipeline: on a laptop, or on a cluster with Ray and DeepSpeed",
        ),
        _frame(18, 322, 1_004, 120, 428, "Serving: two processes on a laptop, an InferenceService on a cluster"),
    ]
    parts += [_arrow(arrow) for arrow in arrows()]
    parts += [_box(box) for box in boxes()]
    parts.append(
        f'<text class="label" x="{LEFT}" y="{TOP - 10}">your repositories, or installed packages</text>'
        f'<text class="label" x="{LEFT}" y="30">'
        "Only code that may be used: every removed file is kept with its reason.</text>"
    )
    return "\n".join([*parts, "</svg>"]) + "\n"


def _frame(x: float, y: float, width: float, height: float, baseline: float, title: str) -> str:
    text = f'<text class="heading" x="{x + 16}" y="{baseline}">{escape(title)}</text>'
    return f'<rect class="frame" x="{x}" y="{y}" width="{width}" height="{height}" rx="10"/>{text}'


def _box(box: Box) -> str:
    centre, middle = box.x + box.width / 2, box.y + box.height / 2
    return (
        f'<rect class="{box.kind}" x="{box.x:g}" y="{box.y:g}" width="{box.width:g}" height="{box.height:g}" rx="6"/>'
        f'<text class="title" x="{centre:g}" y="{middle - 3:g}" text-anchor="middle">'
        f"{escape(box.title)}</text>"
        f'<text class="about" x="{centre:g}" y="{middle + 13:g}" text-anchor="middle">'
        f"{escape(box.about)}</text>"
    )


def _arrow(arrow: Arrow) -> str:
    path = " L".join(f"{x:g} {y:g}" for x, y in arrow.points)
    line = f'<path class="arrow" d="M{path}"/>'
    if not arrow.label:
        return line
    (x0, y0), (x1, y1) = arrow.points[0], arrow.points[-1]
    if x0 == x1:
        place = f'x="{x0 - 8:g}" y="{(y0 + y1) / 2 + 4:g}" text-anchor="end"'
    else:
        place = f'x="{(x0 + x1) / 2:g}" y="{y0 + (-5 if x1 > x0 else 14):g}" text-anchor="middle"'
    return f'{line}<text class="label" {place}>{escape(arrow.label)}</text>'


def main() -> None:
    """Write the picture."""
    entry.Parser(prog=PROGRAM, description=__doc__).parse_args()
    FILE.parent.mkdir(parents=True, exist_ok=True)
    FILE.write_text(draw(), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(entry.run(PROGRAM, main))
