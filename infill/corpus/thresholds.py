"""The thresholds of quality by language; `signals` measures, `quality` compares.

| threshold | value | source |
| --- | --- | --- |
| longest and mean line | 1,000 and 100 | BigCode (bigcode-dataset, preprocessing/arguments.py); StarCoder2, |
| | | arXiv 2402.19173, section 3.1; OpenCoder (opc_data_filtering) |
| the same in HTML, JSON, Markdown, TeX, text, XML | 100,000 and none | StarCoder2, section 3.1 (also Roff and SMT) |
| the same in reStructuredText | 100,000 and none | BigCode (preprocessing/visual_inspection.csv: no limit) |
| lines | 100,000 | StarCoder2, section 3.1; OpenCoder |
| letters and digits | 0.25 | BigCode (arguments.py); StarCoder2 counts letters alone |
| letters and digits in JSON and YAML | 0.5 | BigCode (visual_inspection.csv), which counts letters alone |
| encoded data: longest run, share | 1,024 and 0.5 | StarCoder2, section 3.1 |
| visible text of HTML | 0.2 | BigCode (preprocessing/filtering.py); StarCoder2; both also want 100 characters |
| digits in code | 0.4 | ours: twice OpenCoder's 0.2, above which there are tests as well as tables |
| white space in JavaScript and CSS | 0.1 | ours: of 400 files in installed packages, minified ones have at most |
| | | 0.09, the others at least 0.13 |

`corpus.max_line_chars`, `corpus.max_mean_line_chars` and `corpus.min_alphanumeric` set the first and the fourth row.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from infill import file_kinds
from infill.config import CorpusConfig


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """Bounds of the signals of the same names; a file at a bound stays."""

    lines: int = 100_000
    longest_line: float = 1_000
    mean_line: float = 100
    alphanumeric: float = 0.25
    digits: float = 1.0
    blank: float = 0.0
    longest_encoded: int = 1_024
    encoded: float = 0.5
    visible: float = 0.0


LONG: Final = 100_000
_LONG_LINES: Final[Mapping[str, float]] = {"longest_line": LONG, "mean_line": LONG}
_DENSE: Final[Mapping[str, float]] = {"blank": 0.1}
BY_LANGUAGE: Final[Mapping[str, Mapping[str, float]]] = {
    "css": _DENSE,
    "html": {**_LONG_LINES, "visible": 0.2},
    "javascript": _DENSE,
    "json": {**_LONG_LINES, "alphanumeric": 0.5},
    "markdown": _LONG_LINES,
    "rst": _LONG_LINES,
    "tex": _LONG_LINES,
    "text": _LONG_LINES,
    "xml": _LONG_LINES,
    "yaml": {"alphanumeric": 0.5},
}
"""Language -> thresholds that are different there."""
CODE: Final[Mapping[str, float]] = {"digits": 0.4}
"""Thresholds that are different in every language of code."""


def of(language: str, config: CorpusConfig) -> Thresholds:
    """Return the thresholds of a language under `config`; the table counts before the settings."""
    usual = Thresholds(
        longest_line=config.max_line_chars,
        mean_line=config.max_mean_line_chars,
        alphanumeric=config.min_alphanumeric,
    )
    own = dict(CODE if file_kinds.kind_of(language) == "code" else {}) | dict(BY_LANGUAGE.get(language, {}))
    return replace(usual, **own)  # type: ignore[arg-type]
