"""Write each chart's README.md from Chart.yaml, values.yaml and ci/; `--check` fails if one is out of date.

In values.yaml a line `# -- text` documents the value below it.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from infill import entry

CHARTS = Path(__file__).parent
COMMENT = re.compile(r"^(?P<indent> *)# -- (?P<text>.+)$")
KEY = re.compile(r"^(?P<indent> *)(?P<name>[\w.-]+):(?P<rest>.*)$")


def documented(text: str) -> Iterator[tuple[str, str]]:
    """Yield the dotted name and description of each documented value."""
    path: list[tuple[int, str]] = []
    pending = ""
    for line in text.split("\n"):
        if match := COMMENT.match(line):
            pending = match["text"]
        elif match := KEY.match(line):
            depth = len(match["indent"])
            path = [entry for entry in path if entry[0] < depth] + [(depth, match["name"])]
            if pending:
                yield ".".join(name for _, name in path), pending
            pending = ""


def lookup(values: Any, name: str) -> Any:
    """Return the default of the value with a dotted name."""
    for part in name.split("."):
        values = values[part]
    return values


def render(chart: Path) -> str:
    """Return the README of the chart in a folder."""
    about = yaml.safe_load((chart / "Chart.yaml").read_text(encoding="utf-8"))
    text = (chart / "values.yaml").read_text(encoding="utf-8")
    values = yaml.safe_load(text)
    rows = [(name, json.dumps(lookup(values, name), ensure_ascii=False), about) for name, about in documented(text)]
    lines = [
        f"# {about['name']}",
        "",
        f"{about['description']}",
        "",
        f"Chart {about['version']}, Kubernetes {about['kubeVersion'].removesuffix('-0')}. "
        "`python charts/readme.py` generates this page; docs/operator-guide.md describes the installation.",
        "",
        "## Values",
        "",
        "| value | default | meaning |",
        "| --- | --- | --- |",
        *(f"| `{name}` | `{default}` | {meaning} |" for name, default, meaning in rows),
        "",
        "## Tested combinations",
        "",
        *(f"- `{path.relative_to(chart)}`: {heading(path)}" for path in sorted((chart / "ci").glob("*.yaml"))),
        "",
    ]
    return "\n".join(lines)


def heading(path: Path) -> str:
    """Return the comment on the first line of a values file."""
    return path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")


def main() -> int:
    """Write or check the READMEs; return 1 if one is out of date."""
    parser = entry.Parser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only compare")
    check = parser.parse_args().check
    stale = 0
    for chart in sorted(path.parent for path in CHARTS.glob("*/Chart.yaml")):
        readme = chart / "README.md"
        if check and (not readme.exists() or readme.read_text(encoding="utf-8") != render(chart)):
            sys.stderr.write(f"{readme} is out of date: run python charts/readme.py\n")
            stale = 1
        elif not check:
            readme.write_text(render(chart), encoding="utf-8")
    return stale


if __name__ == "__main__":
    sys.exit(entry.run("charts/readme.py", main))
