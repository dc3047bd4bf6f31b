"""The report as one self-contained HTML file: styles inside, plots as data, every text escaped."""

import base64
import statistics
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, Final

from infill import html_page, storage, tracking
from infill.artifacts import decision as decisions
from infill.evaluate.statistics import Comparison, p_values
from infill.metrics import METRICS
from infill.report import charts, learning, side_by_side
from infill.report.artifact_contents import ArtifactContents
from infill.stages.table import MODELS

ROWS: Final = 12
"""Maximum rows of a table of shares; all further values are one row."""
SPEED: Final = ("hardware", "tokens", "operations", "tokens/s", "MFU", "waiting for data", "peak memory")
"""Columns of the table of trainings; rates are medians over the logged steps."""

_STYLE: Final = """\
.verdict { margin: 1.4rem 0; padding: 0.9rem 1.2rem; border-left: 5px solid; border-radius: 4px;
  background: var(--pale); }
.verdict p { margin: 0.2rem 0 0; }
.passed { border-color: #3f8f5b; } .refused { border-color: #b4442f; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(26rem, 1fr)); gap: 0 2.5rem; align-items: start; }
img { width: 100%; height: auto; margin: 0.5rem 0; }
caption { text-align: left; font-weight: 600; padding: 0.6rem 0 0.3rem; }
td.number, th.number { padding-right: 0.9rem; }
td.bar { width: 38%; vertical-align: middle; }
td.bar div { height: 0.65rem; min-width: 2px; border-radius: 2px; background: var(--accent); opacity: 0.8; }
td.what { width: 13rem; }
td.won { font-weight: 600; }
.part { display: inline-block; margin-right: 1rem; color: var(--soft); }
.part b { color: var(--ink); font-weight: 500; }
td small { color: var(--soft); font-weight: 400; }
article { margin: 1rem 0 1.6rem; border: 1px solid var(--line); border-radius: 6px; overflow: hidden; }
article header { padding: 0.5rem 1rem; background: var(--pale); border-bottom: 1px solid var(--line); }
article .answers { display: grid; grid-template-columns: repeat(auto-fit, minmax(13rem, 1fr)); }
article .answers div { padding: 0.5rem 1rem; border-top: 1px solid var(--line); border-right: 1px solid var(--line);
  min-width: 0; }
pre { margin: 0; padding: 0.7rem 1rem; overflow-x: auto; font: 12.5px/1.45 ui-monospace, "SF Mono", Consolas,
  "DejaVu Sans Mono", monospace; }
.answers pre { padding: 0.3rem 0; white-space: pre-wrap; overflow-wrap: anywhere; }
mark { background: #d8ead9; color: inherit; border-radius: 2px; }
code { font: 0.92em ui-monospace, "SF Mono", Consolas, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; }
"""


def render(title: str, contents: ArtifactContents, run_id: str, output: str) -> str:
    """Return the whole page, for the folder `output`.

    `run_id` is the pipeline's run in MLflow, "" if nothing was tracked.
    """
    parts = [
        _head(title, contents),
        _evaluation(contents),
        _training(contents),
        learning.section(contents.learning),
        _corpus(contents),
        _tokenizer(contents),
        _data(contents),
        side_by_side.section(contents),
        _stages(contents, run_id, output),
    ]
    return html_page.render(title, "\n".join(parts), _STYLE + side_by_side.STYLE)


def _head(title: str, contents: ArtifactContents) -> str:
    decision, metric = contents.decision, contents.decision["metric"]
    won = contents.records[decision["winner"]]["metrics"][metric]
    passed = decision["passed"]
    verdict = "passed the gate" if passed else "was refused by the gate"
    finished = contents.stages["register"].created
    where = f" It is registered in MLflow as a version of {decision['name']}." if passed else ""
    if decisions.on_trial(decision):
        where += " It is on trial next to the champion until infill canary decide promotes it or rolls it back."
    tiles = {
        f"{metric} of {decision['winner']}": f"{won['value']:.3f}",
        "documents kept": f"{contents.corpus['documents_kept']:,}",
        "tokens to train on": charts.short(contents.tokenizer["tokens"]),
        "bytes per token": f"{contents.tokenizer['bytes_per_token']:.2f}",
        "held-out holes": f"{contents.records[decision['winner']]['holes']:,}",
        "time of all stages": html_page.duration(sum(stage.seconds for stage in contents.stages.values())),
    }
    return "\n".join(
        [
            f"<h1>{escape(title)}</h1>",
            f'<p class="soft">Finished {escape(finished[:16].replace("T", " "))} UTC, commit'
            f" <code>{escape(contents.stages['register'].commit[:12])}</code></p>",
            f'<div class="verdict {"passed" if passed else "refused"}"><b>{escape(decision["winner"])} {verdict}.</b>'
            f"<p>{escape(decision['reason'] + where)}</p></div>",
            html_page.tiles((value, name) for name, value in tiles.items()),
        ]
    )


def _evaluation(contents: ArtifactContents) -> str:
    decision = contents.decision
    shown = {name: contents.records[name]["metrics"] for name in MODELS}
    if "champion" in decision["evaluation"]:
        shown["champion before"] = decision["evaluation"]["champion"]
    metrics = sorted(
        METRICS, key=lambda metric: metric != decision["metric"]
    )  # the deciding metric first, then in the order of their definition
    rows = []
    for metric in metrics:
        label = f"{_words(metric)}{' (decides)' if metric == decision['metric'] else ''}"
        cells = [_interval(figures.get(metric), won=name == decision["winner"]) for name, figures in shown.items()]
        rows.append(f"<tr><td>{escape(label)}</td>{''.join(cells)}</tr>")
    heads = [f"{name} (winner)" if name == decision["winner"] else name for name in shown]
    kinds = contents.records[decision["winner"]]["by_kind"]
    languages = contents.records[decision["winner"]]["by_language"]
    return "\n".join(
        [
            "<h2>Evaluation</h2>",
            f'<p class="soft">Completions of {contents.records[MODELS[0]]["holes"]:,} holes in held-out repositories.'
            " Bars and brackets are 95 % intervals: models whose intervals overlap widely may not differ.</p>",
            _image(charts.evaluation(contents), "metrics of the base, SFT and DPO models with 95 % intervals"),
            _table(["metric", *heads], rows, numbers=range(1, 1 + len(shown))),
            _paired(contents, metrics),
            '<div class="pair">',
            _groups("By the kinds of the hole's boundaries", decision, kinds),
            _groups("By language", decision, languages),
            "</div>",
        ]
    )


def _paired(contents: ArtifactContents, metrics: Sequence[str]) -> str:
    """Return a table of the models' differences on the same holes."""
    rows = [
        f"<tr><td>{escape(_words(metric))}</td>"
        f"{''.join(_difference(compared[metric]) for compared in contents.comparisons.values())}</tr>"
        for metric in metrics
    ]
    heads = [f"{later} minus {earlier}" for later, earlier in contents.comparisons]
    caption = "Differences on the same holes, with 95 % intervals and p-values (not corrected for their number)"
    return _table(["metric", *heads], rows, numbers=range(1, 1 + len(heads)), caption=caption)


def _difference(comparison: Comparison) -> str:
    interval = f"[{comparison.low:+.3f}, {comparison.high:+.3f}]"
    return (
        f'<td class="number">{comparison.value:+.3f} <small>{interval}<br>{escape(p_values(comparison))}</small></td>'
    )


def _interval(figure: Mapping[str, float] | None, *, won: bool) -> str:
    if figure is None:
        return '<td class="number"></td>'
    text = f"{figure['value']:.3f} <small>[{figure['low']:.3f}, {figure['high']:.3f}]</small>"
    return f'<td class="number{" won" if won else ""}">{text}</td>'


def _groups(caption: str, decision: Mapping[str, Any], groups: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a table of the winner's deciding metric by groups of holes."""
    metric = decision["metric"]
    rows = [
        f'<tr><td>{escape(_words(name))}</td><td class="number">{group["holes"]}</td>'
        f"{_interval(group['metrics'].get(metric), won=False)}</tr>"
        for name, group in sorted(groups.items(), key=lambda item: -item[1]["holes"])
    ]
    heads = ["holes of", "number", f"{metric} of {decision['winner']}"]
    return _table(heads, rows, numbers=(1, 2), caption=caption)


def _training(contents: ArtifactContents) -> str:
    return "\n".join(
        [
            "<h2>Training</h2>",
            '<p class="soft">Losses of different trainings are not comparable: pre-training predicts whole files, SFT'
            " the middle of a hole, and DPO's loss starts at ln 2 = 0.693.</p>",
            _image(charts.losses(contents), "loss of the three trainings over tokens seen"),
            _table(
                ["training", *SPEED],
                [_speed(name, rows) for name, rows in contents.histories.items() if rows],
                numbers=(),
            ),
        ]
    )


def _speed(name: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a training's last row and medians as a row of a table; figures that were not logged stay empty."""
    last = rows[-1]

    def median(figure: str, shape: str) -> str:
        values = [row[figure] for row in rows if figure in row]
        return format(statistics.median(values), shape) if values else ""

    flops, memory = last.get("flops"), last.get("device_memory_peak_mb", last.get("memory_peak_mb"))
    cells = [
        name,
        f"{last.get('workers', '')} x {last.get('device', '')}".strip(" x"),
        charts.short(last["tokens"]),
        "" if flops is None else f"{flops:.3g}",
        median("tokens_per_s", ",.0f"),
        median("mfu", ".1%"),
        median("data_wait_share", ".2%"),
        "" if memory is None else html_page.size(1e6 * memory),
    ]
    return f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"


def _corpus(contents: ArtifactContents) -> str:
    report = contents.corpus
    kept = f"{report['documents_kept']:,} files ({html_page.size(report['bytes_kept'])})"
    return "\n".join(
        [
            "<h2>Corpus</h2>",
            f"<p>{kept} of {report['repositories']:,} repositories were kept,"
            f" {report['documents_removed']:,} files removed, each with its reason.</p>",
            '<div class="pair">',
            _by_size("By licence", "licence", report["by_licence"]),
            _by_size("By language", "language", report["by_language"]),
            "</div>",
            _removed(report["removed"]),
        ]
    )


def _by_size(caption: str, what: str, groups: Mapping[str, Mapping[str, int]]) -> str:
    """Return a table of groups of files with a bar for their bytes, largest first."""
    ordered = sorted(groups.items(), key=lambda item: -item[1]["bytes"])
    rest = ordered[ROWS:]
    if rest:
        both = {key: sum(entry[key] for _, entry in rest) for key in ("documents", "bytes")}
        ordered = [*ordered[:ROWS], (f"{len(rest)} others", both)]
    top = max((entry["bytes"] for _, entry in ordered), default=0)
    rows = [
        f'<tr><td>{escape(name)}</td><td class="number">{entry["documents"]:,}</td>'
        f'<td class="number">{html_page.size(entry["bytes"])}</td>{_bar(entry["bytes"], top)}</tr>'
        for name, entry in ordered
    ]
    return _table([what, "files", "size", ""], rows, numbers=(1, 2), caption=caption)


def _removed(reasons: Mapping[str, Mapping[str, int]]) -> str:
    top = max((entry["documents"] for entry in reasons.values()), default=0)
    rows = [
        f'<tr><td>{escape(_words(name))}</td><td class="number">{entry["documents"]:,}</td>'
        f'<td class="number">{html_page.size(entry["bytes"])}</td>{_bar(entry["documents"], top)}</tr>'
        for name, entry in sorted(reasons.items(), key=lambda item: -item[1]["documents"])
    ]
    return _table(["reason", "files", "size", ""], rows, numbers=(1, 2), caption="Removed, by reason")


def _bar(value: float, top: float) -> str:
    """Return a cell with a bar of the length `value` / `top`."""
    return f'<td class="bar"><div style="width:{100 * value / top if top else 0:.1f}%"></div></td>'


def _tokenizer(contents: ArtifactContents) -> str:
    report = contents.tokenizer
    languages = report.get("bytes_per_token_by_language", {})
    rows = [
        f'<tr><td>{escape(name)}</td><td class="number">{value:.2f}</td>{_bar(value, max(languages.values()))}</tr>'
        for name, value in sorted(languages.items(), key=lambda item: -item[1])[:ROWS]
    ]
    measured = "held-out repositories" if report.get("held_out", True) else "the train split (nothing is held out)"
    return "\n".join(
        [
            "<h2>Tokenizer</h2>",
            f"<p>{report['vocab_size']:,} entries; {report['bytes_per_token']:.2f} bytes per token on {measured};"
            f" {report.get('round_trip', 1.0):.2%} of the documents decode to themselves;"
            f" {report.get('unused_share', 0.0):.1%} of the entries were not used there.{_prompts(report)}</p>",
            _table(["language", "bytes per token", ""], rows, numbers=(1,)) if rows else "",
        ]
    )


def _prompts(report: Mapping[str, Any]) -> str:
    """Return the sentence about tokens per prompt; empty for a tokenizer of an older version, which lacks them."""
    if "tokens_per_prompt" not in report:
        return ""
    median, high = (report["tokens_per_prompt"][part] for part in ("p50", "p95"))
    return (
        f" The prompt for a hole, with its whole file and no other, has {median:,.0f} tokens in the median"
        f" and {high:,.0f} in the 95th percentile."
    )


def _data(contents: ArtifactContents) -> str:
    return "\n".join(
        [
            "<h2>Examples and preferences</h2>",
            _facts("Holes with their context", contents.examples),
            _facts("Pairs of completions", contents.preferences),
        ]
    )


def _facts(caption: str, report: Mapping[str, Any]) -> str:
    """Return a stage's report.json as a table with a row per entry."""
    rows = [
        f'<tr><td class="what">{escape(_words(name))}</td><td>{_figure(value)}</td></tr>'
        for name, value in report.items()
    ]
    return _table(["what", "figure"], rows, numbers=(), caption=caption)


def _figure(value: Any) -> str:
    """Return a number or text as HTML, or the parts of an object one after the other, the largest first.

    A part that is an object itself has a line of its own.
    """
    if isinstance(value, Mapping):
        counts = all(isinstance(part, int) for part in value.values())
        parts = sorted(value.items(), key=lambda item: -item[1]) if counts else list(value.items())
        shown = [
            f'<span class="part">{escape(_words(name))} <b>{_figure(part)}</b></span>'
            if not isinstance(part, Mapping)
            else f'<div><span class="soft">{escape(_words(name))}:</span> {_figure(part)}</div>'
            for name, part in parts
        ]
        return " ".join(shown)
    if isinstance(value, float):
        return f"{value:,.4g}"
    return f"{value:,}" if isinstance(value, int) else escape(str(value)[:200])


def _words(name: str) -> str:
    return name.replace("_", " ")


def _stages(contents: ArtifactContents, run_id: str, output: str) -> str:
    longest = max(stage.seconds for stage in contents.stages.values())
    places = {name: storage.relative(stage.uri, output) or stage.uri for name, stage in contents.stages.items()}
    rows = [
        f"<tr><td>{escape(name)}<br><small><code>{escape(places[name])}</code></small></td>"
        f'<td class="number">{html_page.duration(stage.seconds)}</td>'
        f"{_bar(stage.seconds, longest)}</tr>"
        for name, stage in contents.stages.items()
    ]
    uri = tracking.mask(tracking.tracking_uri())
    if database := tracking.database_file(uri):
        uri = storage.relative(str(database), output) or uri
    where = f"<code>{escape(uri)}</code>, run <code>{escape(run_id)}</code>" if uri else "nothing was tracked"
    return "\n".join(
        [
            "<h2>Stages</h2>",
            f"<p>MLflow: {where}.</p>",
            _table(["stage", "time", ""], rows, numbers=(1,)),
        ]
    )


def _table(heads: Sequence[str], rows: Sequence[str], *, numbers: Iterable[int], caption: str = "") -> str:
    right = set(numbers)
    cells = "".join(
        f"<th{' class=number' if place in right else ''}>{escape(head)}</th>" for place, head in enumerate(heads)
    )
    top = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f"<table>{top}<thead><tr>{cells}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _image(svg: str, alt: str) -> str:
    """Return a plot as a separate image, so that ids inside several plots do not clash."""
    data = base64.b64encode(svg.encode()).decode()
    return f'<img alt="{escape(alt)}" src="data:image/svg+xml;base64,{data}">'
