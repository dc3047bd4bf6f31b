"""What the editor's documents show of a suggestion, and that a real server takes what is reported of it."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infill import metrics
from infill.context.packing import Packed
from infill.editor.completer import Completion
from infill.editor.documents import Caret, DocumentLocation
from infill.editor.persistence import DocumentSpan, difference, follow, similarity
from infill.editor.telemetry import EditorTelemetry
from infill.editor.user_settings import Consent
from infill.feedback import dataset
from infill.prompt import ContextItem, Prompt
from tests.editor.conftest import Backend, editing
from tests.properties import examples
from tests.serving.conftest import HTTP, chunk, say, strange_predictor, transforming

PREFIX, TEXT, SUFFIX = "x = 1\ny = ", "first(x)\nz = second(y)", "\nend\n"
texts = st.text(st.sampled_from("ab \n"), max_size=12)


# -- Places and similarity


@examples(200)
@given(old=texts, new=texts)
def test_the_difference_of_two_texts_makes_one_of_the_other(old: str, new: str) -> None:
    start, end, new_end = difference(old, new)
    assert 0 <= start <= end <= len(old)
    assert old[:start] + new[start:new_end] + old[end:] == new


@examples(200)
@given(one=texts, other=texts)
def test_similarity_is_that_of_the_metrics(one: str, other: str) -> None:
    assert similarity(one, other) == pytest.approx(metrics.edit_similarity(one, other))


def test_long_texts_are_compared_by_lines() -> None:
    lines = [f"line {number} of a text\n" for number in range(100)]
    other = ["new\n" if number % 10 == 0 else line for number, line in enumerate(lines)]
    assert 0.7 < similarity("".join(lines), "".join(other)) < 1
    assert similarity("".join(lines), "x" * 2_000) == 0


@examples(200)
@given(before=texts, after=texts, new_before=texts, new_after=texts)
def test_a_place_is_found_again_whatever_changes_around_it(
    before: str, after: str, new_before: str, new_after: str
) -> None:
    text = before + "[HERE]" + after
    span = DocumentSpan(len(before), len(before) + len("[HERE]"))
    for new in (new_before + "[HERE]" + after, new_before + "[HERE]" + new_after):
        follow(span, *difference(text, new))
        text = new
        assert text[span.start : span.end] == "[HERE]"


def test_a_place_that_was_emptied_is_filled_again_by_an_undo() -> None:
    span = DocumentSpan(2, 4)
    follow(span, *difference("abXXcd", "abcd"))
    assert (span.start, span.end) == (2, 2)
    follow(span, *difference("abcd", "abXXcd"))
    assert (span.start, span.end) == (2, 4)


# -- From edits to reports


@dataclass
class Desk:
    """An editor with one document, whose clock a test moves."""

    consent: Consent = "metrics"
    reports: list[dict[str, Any]] = field(default_factory=list)
    due: list[tuple[float, Callable[[], None]]] = field(default_factory=list)
    now: float = 0.0
    text: str = PREFIX + SUFFIX

    def __post_init__(self) -> None:
        self.telemetry = EditorTelemetry(self.reports.append, self.later, lambda: self.consent)

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        self.due.append((self.now + seconds, action))

    def wait(self, seconds: float) -> None:
        self.now += seconds
        ready = sorted([each for each in self.due if each[0] <= self.now], key=lambda each: each[0])
        self.due = [each for each in self.due if each[0] > self.now]
        for _, action in ready:
            action()

    def offer(self, identifier: str = "cmpl-1", text: str = TEXT, typed: str = "") -> None:
        item = ContextItem(path="b.py", text="b\n", first_line=1, last_line=1, score=1.0, strategy="infill")
        packed = Packed(prompt=Prompt(ids=[1], items=(item,)), why_empty=None)
        caret = Caret(DocumentLocation(None, "a.py"), PREFIX + typed, SUFFIX)
        place = len(PREFIX + typed)
        completion = Completion(text, caret, packed, id=identifier, typed=typed)
        self.telemetry.offered("file:///a.py", completion, self.text, (place, place))

    def change(self, text: str, inserted: str = "") -> None:
        self.text = text
        self.telemetry.changed("file:///a.py", text, (inserted,))

    def write(self, *parts: str) -> None:
        """Insert texts at the caret, one after the other."""
        place = len(self.text) - len(SUFFIX)
        for part in parts:
            self.change(self.text[:place] + part + self.text[place:], part)
            place += len(part)

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [report for report in self.reports if report["type"] == kind]


ACCEPTANCES: dict[str, tuple[tuple[str, ...], list[tuple[str, int]], bool]] = {
    "all at once": ((TEXT,), [("all", len(TEXT))], False),
    "a word": (("first",), [("word", 5)], False),
    "a line": (("first(x)",), [("line", 8)], False),
    "a word, then the rest": (("first", TEXT[5:]), [("word", 5), ("all", len(TEXT))], False),
    "typed, then the rest": (("f", "i", TEXT[2:]), [("all", len(TEXT))], False),
    "typed": (tuple(TEXT), [], False),
    "a word, then something else": (("first", "!"), [("word", 5)], False),
    "something else": (("!",), [], True),
    "its beginning, then something else": (("f", "!"), [], True),
}


@pytest.mark.parametrize("case", ACCEPTANCES)
def test_what_is_taken_is_seen_in_the_text(case: str) -> None:
    parts, accepted, dismissed = ACCEPTANCES[case]
    desk = Desk()
    desk.offer()
    desk.write(*parts)
    assert len(desk.events("view")) == 1
    assert [(each["select_kind"], each["accepted_chars"]) for each in desk.events("select")] == accepted
    assert bool(desk.events("dismiss")) == dismissed


def test_what_is_left_is_reported_three_times() -> None:
    desk = Desk()
    desk.offer()
    desk.write(TEXT)
    desk.change("new\n" + desk.text)
    desk.wait(15)
    desk.change(desk.text.replace("second", "third!"))
    desk.wait(15)
    desk.change(desk.text.replace("first(x)\nz = third!(y)", ""))
    desk.wait(90)
    kept = [(each["after_s"], each["kept_chars"]) for each in desk.events("persist")]
    assert kept == [(15, len(TEXT)), (30, len(TEXT) - 6), (120, 0)]
    assert desk.events("feedback") == []


def test_typing_is_counted_and_pasting_is_not() -> None:
    desk = Desk()
    desk.change(desk.text + "a", "a")
    desk.change(desk.text + "\n    ", "\n    ")
    desk.change(desk.text + "pasted text", "pasted text")
    desk.change(desk.text, "()")
    desk.wait(60)
    assert [(each["language"], each["typed_chars"]) for each in desk.events("type")] == [("python", 8)]
    desk.wait(60)
    assert len(desk.events("type")) == 1


def test_an_acceptance_that_the_editor_changes_is_reported_by_its_command() -> None:
    desk = Desk()
    desk.offer()
    desk.change(PREFIX + TEXT.replace("\n", "\n    ") + SUFFIX, TEXT)
    desk.telemetry.accepted("cmpl-1")
    desk.telemetry.accepted("cmpl-1")
    assert [each["accepted_chars"] for each in desk.events("select")] == [len(TEXT)]


def test_the_same_completion_is_shown_once() -> None:
    desk = Desk()
    desk.offer()
    desk.write("f")
    desk.offer(text=TEXT[1:], typed="f")
    assert len(desk.events("view")) == 1
    desk.offer("cmpl-2", text="other")
    assert [each["completion_id"] for each in desk.events("dismiss")] == ["cmpl-1"]


def test_without_consent_nothing_is_reported_or_kept() -> None:
    desk = Desk(consent="off")
    desk.offer()
    desk.write(TEXT)
    desk.wait(200)
    assert desk.reports == []


def test_consent_that_is_withdrawn_ends_it() -> None:
    desk = Desk(consent="feedback")
    desk.offer()
    desk.write(TEXT)
    before = len(desk.reports)
    desk.consent = "off"
    desk.change(desk.text + "x", "x")
    desk.wait(200)
    assert len(desk.reports) == before


@pytest.fixture(scope="module")
def feedback() -> list[dict[str, Any]]:
    """Feedback of an edited, a replaced and a partly typed suggestion."""
    reports = []
    for number, (start, parts) in enumerate([("", (TEXT,)), ("", ("!", "o", "w", "n\nmore")), ("f", ("irst",))]):
        desk = Desk(consent="feedback")
        desk.write(*start)
        desk.offer(f"cmpl-{number}", TEXT[len(start) :], start)
        desk.write(*parts)
        desk.change(desk.text.replace("second", "third"))
        desk.wait(120)
        (report,) = desk.events("feedback")
        reports.append(report)
    return reports


def test_feedback_holds_what_is_there_in_the_end(feedback: list[dict[str, Any]]) -> None:
    assert [each["outcome"] for each in feedback] == ["accepted", "rejected", "accepted"]
    assert [each["final"] for each in feedback] == [TEXT.replace("second", "third"), "!own\nmore", "first"]
    assert {(each["prefix"], each["suffix"], each["shown"]) for each in feedback} == {(PREFIX, SUFFIX, TEXT)}
    assert all(each["context"][0]["path"] == "b.py" for each in feedback)


def test_the_server_takes_what_the_editor_reports(model: Path, tmp_path: Path) -> None:
    answer = say("200 OK", chunk(TEXT, "stop") + "data: [DONE]\n\n", "text/event-stream")
    settings = {"telemetry": "feedback", "feedback": str(tmp_path)}
    with strange_predictor(answer) as (predictor, _), transforming(model, predictor, **settings) as (url, service):
        desk = Desk(consent="feedback")
        service.telemetry.clock = lambda: desk.now
        body = {"prompt": PREFIX, "suffix": SUFFIX, "path": "a.py"}
        desk.offer(HTTP.post(f"{url}/v1/completions", json=body).json()["id"])
        desk.write(TEXT)
        for _ in range(8):
            desk.wait(15)
        answers = [HTTP.post(f"{url}/v1/events", json=report) for report in desk.reports]
        assert [answer.status_code for answer in answers] == [200] * len(desk.reports)
        assert {each["type"] for each in desk.reports} == {"view", "select", "persist", "type", "feedback"}
        service.telemetry.close()
    (row,) = dataset.read(str(tmp_path))
    assert (row["shown"], row["final"], row["path"]) == (TEXT, TEXT, "a.py")


# -- The language server


@pytest.fixture(scope="module")
def counting(model: Path) -> Iterator[tuple[Backend, Any]]:
    from infill.prompt import load_encoder

    with (
        strange_predictor(lambda _: None) as (address, predictor),
        transforming(model, address, telemetry="metrics", max_prompt_tokens=512) as (url, service),
    ):
        backend = Backend(url, predictor, load_encoder(model), service)
        backend.answer("answer(1)")
        yield backend, service.telemetry.counts


@pytest.mark.parametrize(("telemetry", "shown"), [("metrics", 2), ("feedback", 2), ("off", 0)])
def test_the_language_server_reports_where_user_and_operator_agree(
    counting: tuple[Backend, Any], telemetry: str, shown: int
) -> None:
    backend, counts = counting
    labels = ("python", "tiny", "infill")
    names = ("shown", "accepted", "rejected")
    before = [getattr(counts, name).labels(*labels)._value.get() for name in names]

    async def main() -> None:
        async with editing(backend.url, options={"telemetry": telemetry}) as editor:
            uri = "untitled:a"
            editor.open(uri, "x = ")
            assert await editor.text(uri, 0, 4) == "answer(1)"
            editor.replace(uri, "x = answer(1)")
            await editor.status()
            editor.replace(uri, "x = answer(1)\ny = ")
            assert await editor.text(uri, 1, 4) == "answer(1)"
            editor.replace(uri, "x = answer(1)\ny = other")

            async def sent() -> bool:
                state = (await editor.status())["telemetry"]
                return bool(state["sent"] == 2 * shown and state["dropped"] == 0)

            await editor.until(sent)

    asyncio.run(main())
    after = [getattr(counts, name).labels(*labels)._value.get() for name in names]
    assert [new - old for new, old in zip(after, before, strict=True)] == [shown, shown // 2, shown // 2]
