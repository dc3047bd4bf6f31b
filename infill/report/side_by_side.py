"""The report's section with the completions of all models in the same holes, compared with the author's text.

The filters are rules of style for the chosen options, so that the page works where scripts are forbidden.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Final

from rapidfuzz.distance import Levenshtein

from infill.report.artifact_contents import RIGHT, VERDICTS, ArtifactContents, Sample

SHOWN_CHARS: Final = 1_200
CONTEXT_LINES: Final = 5
LEAST_SIMILAR: Final = 0.3
"""Similarity, by tokens, below which a difference is not shown token by token: little is common but brackets."""
_TOKEN: Final = re.compile(r"\w+|\s|[^\w\s]")

STYLE: Final = """\
.filters { display: flex; flex-wrap: wrap; gap: 0.6rem 1.4rem; align-items: end; padding: 0.7rem 1rem; margin: 0.6rem 0;
  background: #fff; border: 1px solid var(--line); border-radius: 6px; position: sticky; top: 0; z-index: 1; }
.filters label { display: grid; gap: 0.15rem; font-size: 0.85rem; color: var(--soft); }
.filters select { font: inherit; font-size: 0.95rem; color: var(--ink); padding: 0.2rem 0.4rem; background: #fff;
  border: 1px solid #767d8d; border-radius: 5px; max-width: 16rem; }
.legend { font-size: 0.85rem; color: var(--soft); margin: 0 0 0 auto; }
ins { background: #fbe3c4; color: var(--ink); text-decoration: underline #a85a00;
  text-underline-offset: 3px; }
del { background: #eceef2; color: #4b5563; text-decoration: line-through; }
.badge { float: right; font-size: 0.82rem; padding: 0 0.6em; border-radius: 1em; border: 1px solid var(--line);
  background: #fff; }
.badge.lost { border-color: #b4442f; color: #9b2c17; }
#holes { counter-reset: shown; }
#holes article { counter-increment: shown; }
.count::before { content: counter(shown); }
"""


def section(contents: ArtifactContents) -> str:
    """Return the section as HTML: the worst losses first, with filters by language, unit, boundaries and verdict."""
    samples, metric = contents.samples, contents.decision["metric"]
    values = {
        "language": [sample.language for sample in samples],
        "kind of hole": [sample.unit for sample in samples],
        "boundaries": [sample.kind for sample in samples],
        "verdict": [sample.verdict for sample in samples],
    }
    classes = {
        name: {value: f"{name[0]}{number}" for number, value in enumerate(_ordered(name, entries))}
        for name, entries in values.items()
    }
    articles = [
        _article(
            sample,
            metric,
            " ".join(classes[name][entries[place]] for name, entries in values.items()),
        )
        for place, sample in enumerate(samples)
    ]
    return "\n".join(
        [
            "<h2>Completions side by side</h2>",
            f'<p class="soft">{_about(contents)}</p>',
            f'<div id="holes"><style>{_rules(classes)}</style>',
            _filters(classes),
            *articles,
            f'<p class="soft"><span class="count"></span> of {len(samples)} are shown.</p></div>',
        ]
    )


def _about(contents: ArtifactContents) -> str:
    counts = ", ".join(f"{contents.verdicts.get(name, 0)} {name}" for name in VERDICTS)
    return (
        f"Of {sum(contents.verdicts.values()):,} held-out holes: {counts}. Worse means that a later model scores lower "
        f"by {escape(contents.decision['metric'])} than an earlier one; {escape(RIGHT)} that all write the author's "
        f"text. Shown are the worst losses first, then the first holes in the order of their hashes, which nobody has "
        "picked."
    )


def _ordered(name: str, values: Iterable[str]) -> list[str]:
    distinct = set(values)
    return [value for value in VERDICTS if value in distinct] if name == "verdict" else sorted(distinct)


def _rules(classes: Mapping[str, Mapping[str, str]]) -> str:
    """Return the rules that hide what is not chosen."""
    return "".join(
        f'#holes:has(option[value="{key}"]:checked) article:not(.{key}){{display:none}}'
        for options in classes.values()
        for key in options.values()
    )


def _filters(classes: Mapping[str, Mapping[str, str]]) -> str:
    selects = []
    for name, options in classes.items():
        entries = "".join(f'<option value="{key}">{escape(_words(value))}</option>' for value, key in options.items())
        selects.append(
            f'<label>{escape(name.capitalize())}<select autocomplete="off"><option value="">all</option>{entries}'
            "</select></label>"
        )
    legend = "Compared with the author's text: <ins>different or too much</ins> <del>missing</del>"
    return f'<div class="filters">{"".join(selects)}<p class="legend">{legend}</p></div>'


def _article(sample: Sample, metric: str, classes: str) -> str:
    before = "\n".join(sample.prefix.split("\n")[-CONTEXT_LINES:])
    after = "\n".join(sample.suffix.split("\n")[:CONTEXT_LINES])
    answers = "".join(
        f"<div><b>{escape(name)}</b> <small class='soft'>{escape(metric)} {sample.scores[name]:.2f}</small>"
        f"<pre>{difference(_cut(output), _cut(sample.middle)) or '<i class=soft>(nothing)</i>'}</pre></div>"
        for name, output in sample.outputs.items()
    )
    lost = f"worse by {sample.loss:.2f}" if sample.loss > 0 else sample.verdict
    return (
        f'<article class="{classes}"><header><span class="badge{" lost" if sample.loss > 0 else ""}">{escape(lost)}'
        f"</span><code>{escape(sample.repo)}/{escape(sample.path)}</code>"
        f' <small class="soft">{escape(_words(f"{sample.unit} {sample.kind}".strip()))}</small></header>'
        f"<pre>{escape(before)}<mark>{escape(_cut(sample.middle))}</mark>{escape(after)}</pre>"
        f'<div class="answers">{answers}</div></article>'
    )


def difference(output: str, truth: str) -> str:
    """Return an output as HTML: what the truth does not have is inserted text, what is missing is deleted text."""
    written, wanted = _TOKEN.findall(output), _TOKEN.findall(truth)
    if not output:
        return ""
    if Levenshtein.normalized_similarity(wanted, written) < LEAST_SIMILAR:
        return f"<ins>{escape(output)}</ins>"
    return "".join(
        _change(wanted[step.src_start : step.src_end], written[step.dest_start : step.dest_end], step.tag)
        for step in Levenshtein.opcodes(wanted, written)
    )


def _change(missing: Sequence[str], added: Sequence[str], tag: str) -> str:
    before, after = escape("".join(missing)), escape("".join(added))
    if tag == "equal":
        return after
    gone = before.replace("\n", "↵")  # a line break that is missing breaks no line
    return (f"<del>{gone}</del>" if missing else "") + (f"<ins>{after}</ins>" if added else "")


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_CHARS else text[:SHOWN_CHARS] + " …"


def _words(name: str) -> str:
    return name.replace("_", " ")
