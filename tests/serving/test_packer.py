"""Projects are indexed once and brought up to date; memory is bounded; sessions do not mix."""

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infill.context import ProjectIndex
from infill.context.packing import Packed, pack
from infill.prompt import Prompt
from serving.predictor.cache import common_prefix
from serving.transformer.client_tokenizer import Tokenizer
from serving.transformer.packer import Packer, ProjectCache, Sessions
from serving.transformer.request import CompletionRequest, read_request
from serving.transformer.service import build_packer
from serving.transformer.transformer_config import TransformerConfig, prepare
from tests import golden
from tests.properties import examples

Files = tuple[tuple[str, str], ...]
FILES: Files = (("a.py", "def alpha():\n    return beta()\n"), ("b.py", "def beta():\n    return 1\n"))


def indexed(cache: ProjectCache, key: str, files: Files) -> dict[str, Any]:
    """The entries of the index of `key` when it is brought up to `files`; one that was kept is the same object."""
    with cache.project(key, files) as shown:
        assert {path: shown.index.text(path) for path in shown.index.files} == dict(files)
        return dict(shown.index.files)


def kept(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    return [path for path in after if after[path] is before.get(path)]


def test_only_files_that_changed_are_indexed_again() -> None:
    cache = ProjectCache(ProjectIndex, 1_000)
    first = indexed(cache, "editor", FILES)
    same = indexed(cache, "editor", FILES)
    assert kept(first, same) == ["a.py", "b.py"]
    changed = indexed(cache, "editor", (FILES[0], ("b.py", "beta = 2\n")))
    assert kept(same, changed) == ["a.py"]
    assert kept(changed, indexed(cache, "editor", FILES[:1])) == ["a.py"]


def test_the_project_that_was_not_asked_for_longest_is_forgotten_first() -> None:
    cache = ProjectCache(ProjectIndex, 150)
    first = {key: indexed(cache, key, FILES) for key in ("one", "two")}
    for key in ("one", "three"):
        indexed(cache, key, FILES)
    assert len(cache) == 2
    assert kept(first["one"], indexed(cache, "one", FILES)) == ["a.py", "b.py"]
    assert kept(first["two"], indexed(cache, "two", FILES)) == []


def test_a_project_beyond_the_limit_is_answered_but_not_kept() -> None:
    cache = ProjectCache(ProjectIndex, 10)
    assert list(indexed(cache, "one", FILES)) == ["a.py", "b.py"]
    assert len(cache) == 0


@examples(30)
@given(versions=st.lists(st.dictionaries(st.sampled_from("abcd"), st.text("xy\n", max_size=9)), max_size=5))
def test_an_index_that_is_kept_equals_a_new_one(versions: list[dict[str, str]]) -> None:
    cache = ProjectCache(ProjectIndex, 10_000)
    for files in versions:
        with cache.project("editor", tuple(files.items())) as shown:
            assert {path: shown.index.text(path) for path in shown.index.files} == files


def test_sessions_are_forgotten_beyond_their_number_and_nameless_ones_at_once() -> None:
    sessions = Sessions(2)
    packed = Packed(prompt=Prompt(ids=[], items=(), prefix_tokens=0, suffix_tokens=0), why_empty=None)
    for name in ("", "one", "two", "three"):
        sessions.put(name, packed, 0.0)
    assert [sessions.get(name) is not None for name in ("", "one", "two", "three")] == [False, False, True, True]


@pytest.fixture(scope="module")
def packer(model: Path) -> Packer:
    config = TransformerConfig(model=str(model), max_prompt_tokens=256)
    return build_packer(config, prepare(config))


def request(
    files: Files = FILES, session: str = "", prompt: str = "x = be", recent: tuple[str, ...] = ()
) -> CompletionRequest:
    context = [{"path": path, "text": text} for path, text in files]
    fields = {"path": "c.py", "prompt": prompt, "session": session, "project": session, "context": context}
    return read_request(fields | {"recent": list(recent)}, 16)


def test_a_session_never_sees_text_that_its_request_does_not_hold(packer: Packer) -> None:
    packer.pack(request(session="shared"))
    items = packer.pack(request(session="shared", files=(("z.py", "beta = 9\n"),))).prompt.items
    assert {item.path for item in items} <= {"z.py"}
    items = packer.pack(request(session="shared", files=())).prompt.items
    assert items == ()


def test_of_two_like_files_the_one_opened_recently_is_nearer_to_the_caret(packer: Packer) -> None:
    files = tuple((path, f"def beta():\n    return {path[0]}{path[0]}\n") for path in ("a.py", "b.py"))
    for latest in ("a.py", "b.py"):
        items = packer.pack(request(files, prompt="x = beta(", recent=(f"./{latest}", "gone.py"))).prompt.items
        assert items[-1].path == latest


def test_text_that_changed_is_packed_as_it_is_now(packer: Packer) -> None:
    packer.pack(request(session="editor"))
    changed = (FILES[0], ("b.py", "def beta(size):\n    return size\n"))
    items = packer.pack(request(session="editor", files=changed)).prompt.items
    assert all("return 1" not in item.text for item in items)


def test_one_session_in_many_threads(packer: Packer) -> None:
    def pack(number: int) -> Any:
        files = FILES[: number % 3]
        return [item.path for item in packer.pack(request(session="busy", files=files)).prompt.items], files

    with ThreadPoolExecutor(8) as pool:
        for paths, files in pool.map(pack, range(60)):
            assert set(paths) <= {path for path, _ in files}


@pytest.mark.parametrize("case", list(golden.cases()), ids=lambda case: f"{case['format']}-{case['budget']}")
def test_golden_prompts(case: dict[str, Any]) -> None:
    """What the transformer sends for a file is, id by id, what training and evaluation see."""
    fields = {**case["request"], "context": ()}
    body = {"path": fields["path"], "prompt": fields["prefix"], "suffix": fields["suffix"]}
    ids = golden_packer(case).pack(read_request(body, 16)).prompt.ids
    fmt, request = golden.FORMATS[case["format"]], golden.request_of(fields)
    assert ids == pack(fmt, golden.ENCODER.encode, request, budget=case["budget"]).prompt.ids
    if not case["request"]["context"]:
        assert ids == case["ids"]


def golden_packer(case: dict[str, Any]) -> Packer:
    return Packer(
        fmt=golden.FORMATS[case["format"]],
        encoder=golden.ENCODER,
        budget=case["budget"],
        strategy="infill",
        context_items=8,
        projects=ProjectCache(ProjectIndex, 1_000_000),
        sessions=Sessions(1),
        tokenizer=Tokenizer(b"{}", 1),
    )


def test_while_someone_types_the_prompt_keeps_its_beginning(packer: Packer) -> None:
    """All but the caret's neighbourhood comes from the KV cache: about 99 % of the tokens."""
    text = "".join(f"def function_{number}(value):\n    return beta(value) + {number}\n\n\n" for number in range(40))
    carets = range(len(text) // 2, len(text) // 2 + 90, 3)
    prompts = [packer.pack(request(session="typing", prompt=text[:caret])).prompt.ids for caret in carets]
    shared = [common_prefix(np.array(a), np.array(b)) for a, b in pairwise(prompts)]
    reused = [size / len(prompt) for size, prompt in zip(shared, prompts[1:], strict=True)]
    assert sorted(reused)[len(reused) // 10] > 0.95
