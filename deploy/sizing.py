"""The table of GPUs, memory, storage and hours in docs/operator-guide.md, from the counts of `infill.model`.

`python -m deploy.sizing` writes it between its two marks; `--check` fails if it is out of date.
"""

import sys
from pathlib import Path
from typing import Any, Final

from infill import entry, model
from infill.config import PRESETS
from infill.stages import TRAINING_STAGES
from infill.stages.sizing import PEAK, UTILISATION, flops, gpus, trainer

GUIDE: Final = Path(__file__).parents[1] / "docs" / "operator-guide.md"
BEGIN: Final = "<!-- python -m deploy.sizing -->"
END: Final = "<!-- end -->"
SIZED: Final = ("small", "mellum_4b", "mellum_4b_gqa")
GIB: Final = 2.0**30


def row(preset: str, stage: str) -> list[str]:
    """Return one row of the table: the resources of a training stage of a preset."""
    config = PRESETS[preset]()
    architecture, vocabulary = config.pretrain.model, config.tokenizer.vocab_size
    train = trainer(config, stage)
    count = gpus(preset, config, stage)
    tokens = float(train.steps) * train.batch_tokens
    memory = model.training_bytes(
        architecture, vocabulary, micro_batch_tokens=train.micro_batch_tokens, itemsize=2, workers=train.workers
    )
    weights = model.parameters(architecture, vocabulary)
    stored = weights * (2 + model.ADAM_BYTES * train.keep_checkpoints) / GIB
    hours = flops(config, stage) / (PEAK * UTILISATION * count) / 3_600
    cells: list[Any] = [
        f"`{preset}`",
        stage,
        count,
        f"{tokens / 1e9:,.1f}",
        f"{memory / GIB:,.0f}",
        f"{stored:,.0f}",
        f"{hours:,.1f}",
        f"{hours * count:,.0f}",
    ]
    return [str(cell) for cell in cells]


def table() -> str:
    """Return the Markdown between the marks."""
    head = ["preset", "stage", "GPUs", "tokens (10^9)", "GiB per GPU", "GiB stored", "hours", "GPU-hours"]
    rows = [row(preset, stage) for preset in SIZED for stage in TRAINING_STAGES]
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def main() -> int:
    """Write or check the table; return 1 if the guide is out of date."""
    parser = entry.Parser(prog="python -m deploy.sizing", description=__doc__)
    parser.add_argument("--check", action="store_true", help="only compare")
    check = parser.parse_args().check
    text = GUIDE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    new = f"{before}{BEGIN}\n\n{table()}\n\n{END}{rest.partition(END)[2]}"
    if not check:
        GUIDE.write_text(new, encoding="utf-8")
    elif new != text:
        sys.stderr.write(f"{GUIDE} is out of date: run python -m deploy.sizing\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(entry.run("python -m deploy.sizing", main))
