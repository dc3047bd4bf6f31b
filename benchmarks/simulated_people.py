"""Feedback and ratings of simulated people, for the experiment `preference-sources` where there are no real ones.

    python -m benchmarks.simulated_people --examples URI --model URI --preferences URI --feedback DIR --ratings DIR
        [--holes N] [--max-prompt-tokens N]

The acceptance follows rules, so the results say how a source's pairs teach, not what people want.

Typists ask `infill serve`'s servers, which keep feedback in the folder of --feedback, at the first train holes of the
examples, with the hole's context. They accept what the author wrote; they accept and correct a suggestion whose first
line has an edit similarity of at least 0.5 with the author's; they pass over any other and write the author's text.

Three raters compare the pairs of --preferences through the page of `infill rate serve`; the set is the folder of
--ratings. `author` prefers the text that is nearer to the author's, and calls two equal whose similarities differ by
less than 0.05. `reader` has only what the page shows, and prefers the text that does not repeat the next line, then the
one with the larger share of names of the excerpt. `hasty` is `author`, but chooses by lot in 3 of 10 items.
"""

import json
import random
import re
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import httpx
from starlette.testclient import TestClient

from infill import entry, storage
from infill.artifacts.examples import read_holes
from infill.artifacts.rating import EQUAL, SKIP, read_items, read_ratings
from infill.cli_options import absolute_uri, integer, output_folder
from infill.metrics import edit_similarity
from infill.preferences import feedback
from infill.rating.rater_agreement import summary
from infill.rating.rating_items import RatingConfig, of_pairs
from infill.rating.rating_server import RatingSession, application
from infill.text import first_line, split_lines
from serving import local

ALIKE: Final = 0.5
"""Least edit similarity of first lines for a suggestion to be accepted and corrected."""
NEARER: Final = 0.05
BY_LOT: Final = 0.3
NAMES: Final = re.compile(r"[^\W\d]\w{2,}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Let typists and raters work; print what came of it."""
    parser = entry.Parser(prog="python -m benchmarks.simulated_people", description="Feedback and ratings by rules.")
    parser.add_argument("--examples", type=absolute_uri, required=True, metavar="URI", help="finished examples")
    parser.add_argument("--model", type=absolute_uri, required=True, metavar="URI", help="the model that completes")
    parser.add_argument("--preferences", type=absolute_uri, required=True, metavar="URI", help="pairs that are rated")
    parser.add_argument("--feedback", type=output_folder, required=True, metavar="DIR", help="put the feedback here")
    parser.add_argument("--ratings", type=output_folder, required=True, metavar="DIR", help="put the rating set here")
    holes = integer("the number of holes", 1)
    parser.add_argument("--holes", type=holes, default=40, metavar="N", help="train holes that are typed at")
    tokens = integer("the number of tokens", 64)
    parser.add_argument("--max-prompt-tokens", type=tokens, default=1_024, metavar="N", help="default: %(default)s")
    options = parser.parse_args(arguments)
    rows = read_holes(options.examples, "train", options.holes).to_pylist()
    outcomes = type_at(rows, options.model, options.feedback, options.max_prompt_tokens)
    kept = feedback.read(str(options.feedback)).counts
    of_pairs(RatingConfig(items=options.holes), options.preferences, str(options.ratings))
    middles = {hole["id"]: hole["middle"] for hole in read_holes(options.examples, "train", sys.maxsize).to_pylist()}
    rate(options.ratings, middles)
    agreement = summary(read_items(str(options.ratings)), read_ratings(str(options.ratings)))
    print(json.dumps({"typists": outcomes, "feedback": kept, "raters": agreement}))


# Typists


def type_at(holes: Sequence[Mapping[str, Any]], model: str, folder: Path, max_prompt_tokens: int) -> Counter[str]:
    """Complete the holes on servers that keep feedback in `folder`; return how often what was done.

    The feedback is whole when this returns. Nothing is done where there is feedback already.
    """
    outcomes: Counter[str] = Counter()
    if storage.list_files(str(folder), ".jsonl"):
        return outcomes
    words = ("--telemetry", "feedback", "--feedback", str(folder), "--telemetry_events", "1000000")
    with (
        local.servers(model, transformer=words, max_prompt_tokens=max_prompt_tokens) as children,
        httpx.Client(base_url=children[1].url, timeout=300, trust_env=False) as client,
    ):
        for hole in holes:
            outcomes[_type(client, hole)] += 1
    return outcomes


def _type(client: httpx.Client, hole: Mapping[str, Any]) -> str:
    """Ask at a hole, and report what the rule makes of the suggestion."""
    context = list({item["path"]: {"path": item["path"], "text": item["text"]} for item in hole["context"]}.values())
    place = {name: hole[name] for name in ("path", "prefix", "suffix")}
    asked = {"path": hole["path"], "prompt": hole["prefix"], "suffix": hole["suffix"], "context": context}
    response = client.post("/v1/completions", json={**asked, "max_tokens": 48, "session": hole["id"]})
    answer = response.raise_for_status().json()
    shown, middle = answer["choices"][0]["text"], hole["middle"]
    if not shown.strip():
        return "blank"
    done = decide(shown, middle)
    accepted = done != "rejected"
    event = {"type": "select" if accepted else "dismiss", "completion_id": answer["id"]}
    client.post("/v1/events", json=event).raise_for_status()
    row = {"outcome": "accepted" if accepted else "rejected", "shown": shown, "final": middle, "consent": True}
    row |= {"context": _packed(answer["infill"]["context"], context), **place}
    client.post("/v1/events", json={**event, **row, "type": "feedback"}).raise_for_status()
    return done


def decide(shown: str, middle: str) -> str:
    """Return what a typist makes of a suggestion where the author wrote `middle`."""
    if shown.strip() == middle.strip():
        return "accepted"
    near = edit_similarity(first_line(shown.strip()), first_line(middle.strip())) >= ALIKE
    return "corrected" if near else "rejected"


def _packed(items: Sequence[Mapping[str, Any]], sent: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
    """Return the packed items with their texts, as an editor reports them."""
    texts = {file["path"]: split_lines(file["text"], keepends=True) for file in sent}
    names = ("path", "first_line", "last_line", "score", "strategy")
    return [
        {name: item[name] for name in names}
        | {"text": "".join(texts[item["path"]][item["first_line"] - 1 : item["last_line"]])}
        for item in items
    ]


# Raters

Rater = Callable[[Mapping[str, Any], str], str]
"""A function from what the page shows of an item and the author's text to `left`, `right` or EQUAL."""


def rate(folder: Path, middles: Mapping[str, str]) -> None:
    """Let each rater choose at all items of the set in `folder`; `middles` are the authors' texts by hole.

    Items of other holes are skipped.
    """
    items = read_items(str(folder))
    truths = [middles.get(item["id"].rpartition("-")[0]) for item in items]
    for name, rater in RATERS.items():
        page = TestClient(application(RatingSession(folder, name)), base_url="http://127.0.0.1")
        for number, truth in enumerate(truths):
            shown = page.get(f"/items/{number}").raise_for_status().json()
            choice = {"choice": SKIP if truth is None else rater(shown, truth), "seconds": 1.0}
            page.post(f"/items/{number}", json=choice).raise_for_status()


def _by_author(shown: Mapping[str, Any], middle: str) -> str:
    left, right = (edit_similarity(shown[side], middle) for side in ("left", "right"))
    return EQUAL if abs(left - right) < NEARER else "left" if left > right else "right"


def _by_reader(shown: Mapping[str, Any], _middle: str) -> str:
    """Return the side that does not repeat the next line, or, of two alike, the one with more names of the excerpt."""
    following = next((line.strip() for line in split_lines(shown["after"]) if line.strip()), "")
    known = set(NAMES.findall(f"{shown['before']}\n{shown['after']}"))

    def merit(text: str) -> tuple[bool, float]:
        names = NAMES.findall(text)
        repeats = any(line.strip() == following for line in split_lines(text))
        return not repeats, sum(name in known for name in names) / max(1, len(names))

    left, right = merit(shown["left"]), merit(shown["right"])
    return EQUAL if left == right else "left" if left > right else "right"


def _by_lot(shown: Mapping[str, Any], middle: str) -> str:
    lot = random.Random(f"{shown['number']} {shown['left']}")
    return lot.choice(("left", "right")) if lot.random() < BY_LOT else _by_author(shown, middle)


RATERS: Final[Mapping[str, Rater]] = {"author": _by_author, "reader": _by_reader, "hasty": _by_lot}


if __name__ == "__main__":
    sys.exit(entry.run("python -m benchmarks.simulated_people", main))
