"""Tests of the report and the summary."""

import io
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from infill import html_page, storage, tracking
from infill.config import ReportConfig
from infill.report import artifact_contents, charts, learning, side_by_side
from pipelines.summary import show
from tests.builders import run_stage
from tests.unit.report import pipeline


def _write(folder: Path, **options: Any) -> tuple[str, dict[str, Any]]:
    artifacts = pipeline.write(folder, **options)
    run_stage(
        "report", ReportConfig(title=f"A run {pipeline.HOSTILE}"), *artifacts.values(), output=str(folder / "report")
    )
    html = (folder / "report" / "report.html").read_text()
    summary: dict[str, Any] = storage.read_json(str(folder / "report" / "summary.json"))
    return html, summary


class _Tags(HTMLParser):
    """Counts tags and sees to it that each is closed where it should be."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.links += [value or "" for name, value in attrs if name in {"src", "href"}]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        return _write(tmp_path_factory.mktemp("report"))


def test_summary_has_exactly_the_keys_that_programs_read(written: tuple[str, dict[str, Any]]) -> None:
    _, summary = written
    keys = {"winner", "model", "gate", "documents", "tokens", "bytes_per_token", "stages", "evaluation", "report"}
    assert set(summary) == keys | {"mlflow_run_id"}
    assert (summary["winner"], summary["model"]) == ("sft", "/store/sft")
    assert set(summary["gate"]) == {"passed", "reason", "canary"}
    assert summary["documents"] == {"kept": 1_234, "removed": 321}
    assert (summary["tokens"], summary["bytes_per_token"]) == (14_200_000, 3.37)
    assert summary["stages"]["sft"].keys() == {"seconds", "loss_first", "loss_last"}
    assert summary["stages"]["corpus"].keys() == {"seconds"}
    assert summary["evaluation"]["dpo"]["kk"].keys() == {"value", "low", "high"}
    assert summary["report"].endswith("report.html")
    assert summary["mlflow_run_id"] == ""


def test_page_is_whole_and_needs_no_other_file(written: tuple[str, dict[str, Any]]) -> None:
    html, _ = written
    tags = _Tags()
    tags.feed(html)
    assert tags.open == []
    assert tags.seen.count("img") == 2
    assert all(link.startswith("data:image/svg+xml;base64,") for link in tags.links)
    assert "url(" not in html
    assert "@import" not in html


def test_every_text_is_escaped(written: tuple[str, dict[str, Any]]) -> None:
    html, _ = written
    assert "<script" not in html
    assert html.count("&lt;script&gt;") >= 4  # title, reason of removal, path, completion


def test_page_tells_what_a_reader_asks_first(written: tuple[str, dict[str, Any]]) -> None:
    html, _ = written
    for text in ("sft passed the gate", "a version of infill", "MIT", "duplicate", "14.2M", "3.37"):
        assert text in html
    assert "5 others" in html  # languages beyond the table's rows
    assert "<i class=soft>(nothing)</i>" in html


def test_page_tells_what_the_trainings_cost(written: tuple[str, dict[str, Any]]) -> None:
    html, _ = written
    cells = ["2 x NVIDIA &lt;H200&gt;", "1.23M", "6e+10", "5,030", "45.1%", "0.40%", "812.0 MB"]
    assert html.count("".join(f"<td>{cell}</td>" for cell in cells)) == 3


def test_page_shows_how_completions_changed(written: tuple[str, dict[str, Any]]) -> None:
    html, _ = written
    part = html[html.index("Learning to complete") : html.index("<h2>Corpus")]
    assert part.count("<article>") == learning.HOLES
    assert part.index("20.5k tokens") < part.index("164k tokens")  # the first and the last time
    assert part.count(" tokens</small>") == learning.HOLES * learning.TIMES
    assert "<mark>return self.size * scale</mark>" in part


def test_completions_are_compared_with_the_author_and_the_worst_losses_come_first(
    written: tuple[str, dict[str, Any]],
) -> None:
    html, _ = written
    part = html[html.index("Completions side by side") : html.index("<h2>Stages")]
    lost = [float(loss) for loss in re.findall(r"worse by ([\d.]+)", part)]
    assert len(lost) == 2
    assert part.rindex("worse by") < part.index(">same</span>")
    assert f"{len(lost)} worse" in part
    assert part.count("<article") == 40
    for value in ("go", "python", "block", "statement", "worse", "same"):
        assert f">{value}</option>" in part


@pytest.mark.parametrize(
    ("output", "html"),
    [
        ("return size", "return size"),
        ("return sizes", "return <del>size</del><ins>sizes</ins>"),
        ("return size\n<b>", "return size<ins>\n&lt;b&gt;</ins>"),
        ("return", "return<del> size</del>"),
        ("for a in b: c()", "<ins>for a in b: c()</ins>"),
        ("", ""),
    ],
)
def test_a_difference_marks_what_is_added_and_what_is_missing(output: str, html: str) -> None:
    assert side_by_side.difference(output, "return size") == html


def test_a_missing_line_break_breaks_no_line() -> None:
    assert side_by_side.difference("a = b + c", "a = b\n + c") == "a = b<del>↵</del> + c"


TEXTS = st.text(st.sampled_from("ab =()\n<&"), max_size=30)


@given(TEXTS, TEXTS)
def test_a_difference_has_the_whole_output(output: str, truth: str) -> None:
    html = side_by_side.difference(output, truth)
    assert unescape(re.sub(r"<del>.*?</del>|</?ins>", "", html, flags=re.DOTALL)) == output


def test_the_page_shows_the_worst_and_then_whatever_comes_first() -> None:
    def sample(number: int, *scores: float) -> artifact_contents.Sample:
        values = dict(zip(("base", "sft", "dpo"), scores, strict=True))
        texts = dict.fromkeys(("repo", "language", "unit", "kind", "prefix", "middle", "suffix"), "")
        return artifact_contents.Sample(path=str(number), outputs=dict.fromkeys(values, "x"), scores=values, **texts)

    samples = [sample(number, 0.5, 0.5, 0.5) for number in range(200)]
    samples += [sample(200 + number, 0.5, 0.6, 0.5 - number / 200) for number in range(60)]
    shown = artifact_contents._shown(samples)
    assert [item.path for item in shown[:2]] == ["259", "258"]
    assert len(shown) == artifact_contents.SAMPLES
    assert [item.path for item in shown[artifact_contents.WORST :]] == [str(number) for number in range(60)]
    assert [sample(0, *scores).verdict for scores in ((0, 1, 0.5), (0, 0, 1), (0, 0, 0))] == ["worse", "better", "same"]


def test_refused_run_with_an_imported_base_has_a_report_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    html, summary = _write(tmp_path, imported=True, passed=False)
    assert "Learning to complete" not in html
    assert "sft was refused by the gate" in html
    assert "champion before" in html
    assert summary["stages"]["pretrain"].keys() == {"seconds"}


def test_a_model_on_trial_is_shown_as_one_and_what_happens_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shown = {}
    for canary in (False, True):
        html, summary = _write(tmp_path / str(canary), canary=canary)
        assert summary["gate"]["canary"] is canary
        assert ("on trial next to the champion until infill canary decide" in html) == canary
        text = io.StringIO()
        show(summary, tmp_path, Console(file=text, width=300))
        shown[canary] = text.getvalue()
    assert f"infill serve --out {tmp_path} --candidate /store/sft --canary-weight 5" in shown[True]
    assert f"infill canary decide --url http://localhost:8080 --out {tmp_path}" in shown[True]
    assert f"infill serve --out {tmp_path}  #" in shown[False]


def test_report_goes_to_the_pipelines_run(mlflow_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parent = tracking.parent_run("demo", "key")
    monkeypatch.setenv(tracking.PARENT_RUN, parent)
    with tracking.stage_run("report", config=ReportConfig()):
        html, summary = _write(mlflow_store)
    assert summary["mlflow_run_id"] == parent
    assert parent in html
    client = tracking.client()
    assert [item.path for item in client.list_artifacts(parent)] == ["report.html"]
    assert client.get_run(parent).data.metrics["gate_passed"] == 1.0


def test_equal_runs_have_equal_plots(tmp_path: Path) -> None:
    run = artifact_contents.read(pipeline.write(tmp_path))
    assert charts.losses(run) == charts.losses(run)
    assert re.search(r"<dc:date>", charts.evaluation(run)) is None


@pytest.mark.parametrize(("seconds", "text"), [(3.21, "3.2 s"), (250, "4 min 10 s"), (7_500, "2 h 5 min")])
def test_durations_read_like_speech(seconds: float, text: str) -> None:
    assert html_page.duration(seconds) == text


@pytest.mark.parametrize(("count", "text"), [(950, "950"), (12_000, "12k"), (3_400_000, "3.4M"), (2.5e12, "2.5T")])
def test_counts_are_short(count: float, text: str) -> None:
    assert charts.short(count) == text


def test_sizes_have_units() -> None:
    assert [html_page.size(count) for count in (12, 1_500, 12_300_000)] == ["12 B", "1.5 kB", "12.3 MB"]


def test_the_models_are_compared_on_the_same_holes(written: tuple[str, dict[str, Any]]) -> None:
    html, _ = written
    table = html.partition("Differences on the same holes")[2].partition("</table>")[0]
    assert [f"{pair}</th>" in table for pair in ("sft minus base", "dpo minus base", "dpo minus sft")] == [True] * 3
    row = table.partition("<td>kk</td>")[2].partition("</tr>")[0]
    assert "+0.200" in row  # 0.35 - 0.15, as pipeline.QUALITY says
    assert "Wilcoxon p " in row
    assert "McNemar" not in row
    assert "McNemar p " in table.partition("<td>exact match</td>")[2].partition("</tr>")[0]
