"""Workspaces: what the server keeps is what the client listed, within the cap, for its tenant alone."""

import asyncio
import gc
import hashlib
import json
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from infill.context import ProjectIndex
from infill.context.memo import Memo
from infill.context.packing import Packed
from serving.protocol import ApiError
from serving.transformer import keys, packer, workspaces
from serving.transformer.packer import Packer
from serving.transformer.service import TransformerService
from serving.transformer.workspaces import Workspace, Workspaces, read_change, why_bad_path
from tests import golden
from tests.properties import examples
from tests.serving.conftest import HTTP, chunk, say, strange_predictor, transforming, wait_until

FILES = {"a.py": "def alpha(first):\n    return first\n", "lib/b.py": "def beta(other):\n    return other\n"}
ASK = {"prompt": "x = alpha(1) + beta(", "suffix": ")\n", "path": "main.py", "max_tokens": 1}
CAP = 50_000_000


def digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def listed(files: dict[str, str]) -> dict[str, str]:
    return {path: digest(text) for path, text in files.items()}


@pytest.fixture(scope="module")
def stack(model: Path) -> Iterator[tuple[str, TransformerService]]:
    """A transformer that asks for no key, before a predictor that always says the same."""
    answer = say("200 OK", chunk("y", "stop"), "text/event-stream")
    with strange_predictor(answer) as (predictor, _), transforming(model, predictor) as (url, service):
        yield url, service


@pytest.fixture
def workspace(stack: tuple[str, TransformerService], request: pytest.FixtureRequest) -> str:
    """The address of a workspace that holds FILES."""
    address = f"{stack[0]}/v1/workspaces/{hashlib.sha256(request.node.name.encode()).hexdigest()[:16]}"
    put(address, {"files": listed(FILES), "texts": FILES})
    return address


def put(address: str, body: dict[str, Any], status: int = 200, **more: Any) -> Any:
    return sent("PUT", address, body, status, **more)


def patch(address: str, body: dict[str, Any], status: int = 200, **more: Any) -> Any:
    return sent("PATCH", address, body, status, **more)


def sent(method: str, address: str, body: dict[str, Any], status: int, **more: Any) -> Any:
    response = HTTP.request(method, address, json=body, **more)
    assert response.status_code == status, response.text
    return response.json()


def ask(address: str, status: int = 200, headers: dict[str, str] | None = None, **fields: Any) -> Any:
    """The answer to a caret in a workspace."""
    url, _, name = address.partition("/v1/workspaces/")
    response = HTTP.post(f"{url}/v1/completions", json={**ASK, "workspace": name, **fields}, headers=headers)
    assert response.status_code == status, response.text
    return response.json()


def packed(address: str, **fields: Any) -> set[str]:
    """The paths of the files in the prompt for a caret."""
    return {item["path"] for item in ask(address, **fields)["infill"]["context"]}


def code(answer: Any) -> str:
    return str(answer["error"]["code"])


# What is listed


def test_the_server_asks_for_the_texts_that_it_lacks(stack: tuple[str, TransformerService]) -> None:
    address = f"{stack[0]}/v1/workspaces/first"
    answer = put(address, {"files": listed(FILES), "texts": {"a.py": FILES["a.py"]}})
    assert (answer["missing"], answer["refused"], answer["left_out"]) == (["lib/b.py"], {}, {})
    assert HTTP.get(address).json()["missing"] == ["lib/b.py"]
    assert packed(address) == {"a.py"}
    patch(address, {"texts": {"lib/b.py": FILES["lib/b.py"]}})
    assert HTTP.get(address).json() | {"bytes": 0, "revision": ""} == {
        "revision": "",
        "files": 2,
        "indexed": 2,
        "bytes": 0,
        "missing": [],
    }
    assert packed(address) == {*FILES}
    assert ask(address)["infill"]["workspace_revision"] == HTTP.get(address).json()["revision"]


def test_a_list_again_asks_only_for_what_has_changed(workspace: str) -> None:
    changed = {**FILES, "a.py": "alpha = beta\n"}
    assert put(workspace, {"files": listed(changed)})["missing"] == ["a.py"]


def test_the_prompt_is_that_of_a_request_with_the_same_files(workspace: str) -> None:
    context = [{"path": path, "text": text} for path, text in FILES.items()]
    once = ask(workspace, session="one")["infill"]
    other = ask(workspace, session="two", workspace="", context=context)["infill"]
    assert (once["context"], once["prompt_tokens"]) == (other["context"], other["prompt_tokens"])


def test_a_removed_file_is_in_no_prompt_any_more(workspace: str) -> None:
    assert "lib/b.py" in packed(workspace, session="s")
    answer = patch(workspace, {"revision": HTTP.get(workspace).json()["revision"], "files": {"lib/b.py": None}})
    assert answer["files"] == 1
    assert packed(workspace, session="s") == {"a.py"}


def test_a_renamed_file_is_not_sent_again(workspace: str) -> None:
    renamed = {"files": {"lib/b.py": None, "c.py": digest(FILES["lib/b.py"])}}
    assert patch(workspace, {"revision": HTTP.get(workspace).json()["revision"], **renamed})["missing"] == []
    assert packed(workspace) == {"a.py", "c.py"}


def test_a_text_with_another_hash_costs_only_its_file(stack: tuple[str, TransformerService]) -> None:
    address = f"{stack[0]}/v1/workspaces/liar"
    answer = put(address, {"files": listed(FILES), "texts": {**FILES, "lib/b.py": "beta = 'a lie'\n"}})
    assert list(answer["refused"]) == ["lib/b.py"]
    assert digest(FILES["lib/b.py"]) in answer["refused"]["lib/b.py"]
    assert HTTP.get(address).json()["missing"] == ["lib/b.py"]
    assert packed(address) == {"a.py"}


def test_a_text_that_is_not_listed_is_refused(workspace: str) -> None:
    answer = patch(workspace, {"texts": {"new.py": "beta = 2\n"}})
    assert "not listed" in answer["refused"]["new.py"]
    assert HTTP.get(workspace).json()["files"] == 2


BAD_PATHS = [
    *(
        "/etc/passwd",
        "../x.py",
        "a/../../x.py",
        "a/./b.py",
        "./a.py",
        "a//b.py",
        "a/",
        "",
        ".",
        "..",
        "C:/x.py",
        "c:x.py",
    ),
    *("\\\\host\\x.py", "..\\x.py", "a\\b.py", "a\0.py", "a\n.py", "a\x7f.py", "a\ud800.py", "x" * 4_097),
]


@pytest.mark.parametrize("path", BAD_PATHS, ids=ascii)
def test_a_path_outside_the_project_costs_only_its_file(workspace: str, path: str) -> None:
    body = json.dumps({"files": {"a.py": digest(FILES["a.py"]), path: "0" * 64}})
    response = HTTP.put(workspace, content=body)
    assert response.status_code == 200, response.text
    assert len(response.json()["refused"]) == 1
    assert (response.json()["files"], packed(workspace)) == (1, {"a.py"})


@examples(200)
@given(parts=st.lists(st.sampled_from([".", "..", "", "a", "b.py", "~", "c d", "é", "日本"]), min_size=1, max_size=4))
def test_an_accepted_path_stays_below_its_root(parts: list[str]) -> None:
    path = "/".join(parts)
    if why_bad_path(path) is None:
        assert (Path("/root") / path).resolve().is_relative_to("/root")
        assert str(Path(path)) == path


LEFT_OUT = {
    "node_modules/x.js": "let x = 1\n",
    "logo.png": "x",
    "zero.py": "x = 1\0\n",
    "made.py": "# Code generated by a tool. DO NOT EDIT.\n",
    "min.py": "x = " + "1 + " * 2_000 + "1\n",
    "large.py": "value = 1\n" * 100_001,
}


@pytest.mark.parametrize("path", LEFT_OUT)
def test_what_the_index_would_leave_out_is_left_out_and_not_asked_for_again(workspace: str, path: str) -> None:
    files = {**FILES, path: LEFT_OUT[path]}
    answer = put(workspace, {"files": listed(files), "texts": {path: LEFT_OUT[path]}})
    assert (list(answer["left_out"]), answer["refused"], answer["missing"]) == ([path], {}, [])
    assert put(workspace, {"files": listed(files)})["missing"] == []
    assert packed(workspace) == {*FILES}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "files"),
        ({"files": None}, "files"),
        ({"files": []}, "files"),
        ({"files": {"a.py": "abc"}}, "files"),
        ({"files": {"a.py": "A" * 64}}, "files"),
        ({"files": {"a.py": 5}}, "files"),
        ({"files": {"a.py": None}}, "files"),
        ({"files": {}, "texts": []}, "texts"),
        ({"files": {}, "texts": {"a.py": None}}, "texts"),
    ],
)
def test_a_malformed_list_is_refused_by_name(workspace: str, body: dict[str, Any], param: str) -> None:
    assert put(workspace, body, 400)["error"]["param"] == param
    assert HTTP.get(workspace).json()["files"] == 2


@pytest.mark.parametrize("name", ["-a", "a b", "x" * 129, "é", "a\n"])
def test_a_name_of_another_form_is_refused(stack: tuple[str, TransformerService], name: str) -> None:
    response = HTTP.post(f"{stack[0]}/v1/completions", json={**ASK, "workspace": name})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "workspace")


def test_another_method_is_refused_with_those_that_are_allowed(workspace: str) -> None:
    response = HTTP.post(workspace, json={})
    assert (response.status_code, response.headers["allow"]) == (405, "PUT, PATCH, GET, DELETE")


# Two clients, two tenants, a server that has lost it


def test_a_stale_change_is_refused_and_a_new_list_mends_it(workspace: str) -> None:
    first = HTTP.get(workspace).json()["revision"]
    mine, other = {"a.py": "alpha = 1\n"}, {"a.py": "alpha = 2\n"}
    second = patch(workspace, {"revision": first, "files": listed(mine), "texts": mine})["revision"]
    stale = {"revision": first, "files": listed(other), "texts": other}
    assert code(patch(workspace, stale, 409)) == "workspace_changed"
    assert HTTP.get(workspace).json()["revision"] == second
    third = put(workspace, {"files": listed({**FILES, **other}), "texts": other})["revision"]
    assert HTTP.get(workspace).json() | {"bytes": 0} == {
        "revision": third,
        "files": 2,
        "indexed": 2,
        "bytes": 0,
        "missing": [],
    }


def test_a_change_that_another_client_has_made_is_none(workspace: str) -> None:
    first = HTTP.get(workspace).json()["revision"]
    change = {"revision": first, "files": listed({"a.py": "alpha = 1\n"}), "texts": {"a.py": "alpha = 1\n"}}
    assert patch(workspace, change) == patch(workspace, change)


def test_the_revision_is_that_of_the_list_however_it_came_about(workspace: str) -> None:
    first = HTTP.get(workspace).json()["revision"]
    body = {"files": listed({"c.py": "c = 1\n"})}
    assert patch(workspace, {"revision": first, **body})["revision"] != first
    back = {"revision": HTTP.get(workspace).json()["revision"], "files": {"c.py": None}}
    assert patch(workspace, back)["revision"] == first
    assert put(f"{workspace}-copy", {"files": listed(FILES)})["revision"] == first


def test_an_unknown_workspace_has_a_code_of_its_own(stack: tuple[str, TransformerService]) -> None:
    address = f"{stack[0]}/v1/workspaces/never"
    answers = [ask(address, 404), patch(address, {"texts": {}}, 404), HTTP.get(address).json()]
    assert [code(answer) for answer in answers] == ["workspace_unknown"] * 3
    assert HTTP.delete(address).status_code == 404


def test_a_closed_workspace_is_unknown(workspace: str) -> None:
    assert HTTP.delete(workspace).status_code == 200
    assert code(ask(workspace, 404)) == "workspace_unknown"


def test_the_workspace_of_another_tenant_is_as_unknown_as_one_that_never_was(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    ours, theirs = ({"authorization": f"Bearer {keys.add(file, name)}"} for name in ("ours", "theirs"))
    answer = say("200 OK", chunk("y", "stop"), "text/event-stream")
    with (
        strange_predictor(answer) as (predictor, _),
        transforming(model, predictor, keys=str(file)) as (url, _),
    ):
        address = f"{url}/v1/workspaces/shared"
        put(address, {"files": listed(FILES), "texts": FILES}, headers=ours)
        for name in ("shared", "never"):
            refusals = {
                str(ask(f"{url}/v1/workspaces/{name}", 404, theirs)).replace(name, "NAME"),
                str(patch(f"{url}/v1/workspaces/{name}", {"texts": FILES}, 404, headers=theirs)).replace(name, "NAME"),
            }
            assert len(refusals) == 1
        put(address, {"files": {}}, headers=theirs)
        assert ask(address, headers=theirs)["infill"]["context"] == []
        assert len(ask(address, headers=ours)["infill"]["context"]) == 2


# Unsaved buffers


def test_an_unsaved_text_counts_for_its_request_only(workspace: str) -> None:
    unsaved = [{"path": "lib/b.py", "text": "gamma = 1\n"}, {"path": "new.py", "text": "def beta(unsaved):\n"}]
    assert packed(workspace, session="s", context=unsaved) == {"a.py", "new.py"}
    assert packed(workspace, session="s") == {*FILES}
    assert HTTP.get(workspace).json()["files"] == 2


# Where a prompt is packed


def test_the_next_keystroke_is_packed_on_the_event_loop_unless_its_workspace_is_in_use(
    stack: tuple[str, TransformerService], workspace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pooled, pack = list[bool](), Packer.pack

    def noted(*arguments: Any, **more: Any) -> Packed:
        pooled.append(asyncio._get_running_loop() is None)
        return pack(*arguments, **more)

    monkeypatch.setattr(Packer, "pack", noted)
    monkeypatch.setattr(packer, "SHORT_S", 60.0)
    for prompt in ("x = alpha(", "x = alpha(1"):
        ask(workspace, session="typing", prompt=prompt)
    assert pooled == [True, False]
    ask(workspace, session="typing", path="other.py")
    assert pooled[2:] == [True], "nobody knows how long another file takes"
    ask(workspace, session="typing", path="other.py", context=[{"path": "long.py", "text": "#" * packer.SHORT_CHARS}])
    assert pooled[3:] == [True]
    with stack[1].workspaces.find("", workspace.rpartition("/")[2])._turns.update():
        asking = threading.Thread(target=ask, args=(workspace,), kwargs={"session": "typing", "path": "other.py"})
        asking.start()
        wait_until(lambda: pooled[4:] == [False, True])
    asking.join()


# Tokens before they are asked for


def test_texts_are_tokenised_before_they_are_asked_for() -> None:
    calls: list[str] = []

    def counted(text: str) -> list[int]:
        calls.append(text)
        return golden.ENCODER.encode(text)

    async def sync(files: dict[str, str]) -> ProjectIndex:
        store = Workspaces(lambda: ProjectIndex(counted), CAP, CollectorRegistry())
        change = read_change({"files": listed(files), "texts": files}, whole=True)
        await store.change("", "w", change)
        store.tokenise_ahead("", "w", change)
        assert store._tokeniser is not None
        await store._tokeniser
        store.shut_down()
        return store.find("", "w")._index

    files = {
        path: "".join(f"    value = {'a' * (line % 7)}({line})\n" for line in range(90)) for path in ("a.py", "b.py")
    }
    index = asyncio.run(sync(files))
    spans = {path: file.span for path, file in index.files.items()}
    texts = [index.item(span.first + 1, count).text for span in spans.values() for count in (1, 2)]
    calls.clear()
    for text in (*texts, files["a.py"][:700]):
        for each in (text, text.removesuffix("\n")):
            assert Memo(counted)(each) == golden.ENCODER.encode(each)
    assert sum(map(len, calls)) < 100 < sum(map(len, texts)) / 5  # only where the caret cuts a line


async def _tokenised(*changes: tuple[bool, dict[str, str], dict[str, str]]) -> list[set[str]]:
    """The files that are tokenised in advance after each change (whole or not, listed files, texts)."""
    seen: set[str] = set()

    def encode(text: str) -> list[int]:
        seen.add(text.splitlines()[0] if text else "")
        return golden.ENCODER.encode(text)

    store = Workspaces(lambda: ProjectIndex(encode), CAP, CollectorRegistry())
    result = []
    for whole, files, texts in changes:
        revision = "" if whole else store.find("", "w").revision
        body = {"files": listed(files), "texts": texts, "revision": revision}
        change = read_change(body, whole=whole)
        await store.change("", "w", change)
        seen.clear()
        store.tokenise_ahead("", "w", change)
        if store._tokeniser is not None:
            await store._tokeniser
        result.append({name for name in "abc" if f"{name}(1)" in seen})
    store.shut_down()
    return result


def test_a_project_is_tokenised_when_it_is_complete_as_far_as_its_tokens_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    a, b, c = ({f"{name}.py": f"{name}(1)\n"} for name in "abc")
    large = {"b.py": "b(1)\n" + "x(1)\n" * 30}
    saved = {"a.py": "a(1)\nb(2)\n"}

    def filled(b: dict[str, str]) -> list[set[str]]:
        steps = [(True, a | b | c, {}), (False, {}, a), (False, {}, b), (False, {}, c), (False, saved, saved)]
        return asyncio.run(_tokenised(*steps))

    monkeypatch.setattr(workspaces, "AHEAD_CHARS", 100)
    assert filled(b) == [set(), set(), set(), {"a", "b", "c"}, {"a"}]
    assert filled(large) == [set(), set(), set(), {"a"}, {"a"}]
    assert asyncio.run(_tokenised((True, a, a), (True, large, large))) == [{"a"}, set()]
    assert asyncio.run(_tokenised((True, a | b, a), (False, saved, saved))) == [{"a"}, {"a"}], "a saved file is"


# Memory


def filled(store: Workspaces, tenant: str, name: str, files: dict[str, str]) -> dict[str, Any]:
    change = read_change({"files": listed(files), "texts": files}, whole=True)
    return asyncio.run(store.change(tenant, name, change))


def source(seed: int, lines: int = 30) -> str:
    return "".join(f"def name_{seed}_{line}(value):\n    return value + {line}\n" for line in range(lines))


@pytest.fixture
def store() -> Iterator[Callable[[int], Workspaces]]:
    stores = []

    def create(max_bytes: int) -> Workspaces:
        stores.append(Workspaces(ProjectIndex, max_bytes, CollectorRegistry()))
        return stores[-1]

    yield create
    for each in stores:
        each.shut_down()


def test_the_least_recently_used_workspace_is_dropped_whole(store: Callable[[int], Workspaces]) -> None:
    size = Workspace(ProjectIndex(), CAP).memory
    few = store(4 * size)
    for name in ("one", "two", "three"):
        filled(few, "", name, {})
    few.find("", "one")
    filled(few, "", "four", {})
    filled(few, "", "five", {})
    kept = {name for name in ("one", "two", "three", "four", "five") if (("", name) in few._open)}
    assert kept == {"one", "three", "four", "five"}
    assert few.memory <= 4 * size


def memory_of(store: Workspaces, count: int) -> tuple[int, int]:
    """Open workspaces; return the most that was counted and the most that was allocated."""
    filled(store, "", "first", {"a.py": source(0, 5)})  # compiles and imports what all of them need
    gc.collect()
    tracemalloc.start()
    try:
        counted = 0
        for number in range(count):
            filled(store, "", f"w{number}", {f"{part}.py": source(number, 5) for part in range(2)})
            counted = max(counted, store.memory)
        gc.collect()
        return counted, tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


def test_many_open_workspaces_stay_below_the_cap(store: Callable[[int], Workspaces]) -> None:
    cap = 3_000_000
    counted, allocated = memory_of(few := store(cap), 50)
    assert 2 < len(few) < 50
    assert cap / 2 < counted <= cap
    assert allocated < 1.1 * cap


@pytest.mark.long
def test_ten_thousand_open_workspaces_stay_below_the_cap(store: Callable[[int], Workspaces]) -> None:
    cap = 100_000_000
    counted, allocated = memory_of(store(cap), 10_000)
    assert counted <= cap
    assert allocated < 1.1 * cap


def indexed(count: int, lines: int) -> Workspace:
    """Return a workspace that has been asked once, with all that it computes when it is."""
    workspace = Workspace(ProjectIndex(), 10**9)
    files = {f"folder{number % 7}/file{number}.py": source(number, lines) for number in range(count)}
    for _ in workspace.steps(read_change({"files": listed(files), "texts": files}, whole=True)):
        pass
    with workspace.queried(()) as shown:
        paths = shown.index.project_paths
        _ = (paths.ranks, paths.stems, paths.distances("x/y.py"))
    return workspace


def test_the_memory_can_be_counted_while_another_thread_asks() -> None:
    workspace, done = indexed(3, 5), threading.Event()

    def ask_on() -> None:
        number = 0
        while not done.is_set():
            with workspace.queried((("open.py", source(number, 2)),)):
                number += 1

    asking, former = threading.Thread(target=ask_on), sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    asking.start()
    try:
        assert all(workspace.memory > 0 for _ in range(3_000))
    finally:
        done.set()
        asking.join()
        sys.setswitchinterval(former)


@pytest.mark.parametrize(("count", "lines"), [(300, 1), (60, 40), (2, 2_000)])
def test_the_counted_memory_is_what_is_allocated(count: int, lines: int) -> None:
    indexed(2, 2)  # what is imported and compiled at the first use stays, but does not belong to a workspace
    gc.collect()
    tracemalloc.start()
    try:
        workspace = indexed(count, lines)
        gc.collect()
        allocated = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert 0.95 * allocated < workspace.memory < 1.6 * allocated


def test_a_workspace_without_room_leaves_files_out_and_answers(store: Callable[[int], Workspaces]) -> None:
    small = store(2_000_000)
    answer = filled(small, "", "one", {f"{number}.py": source(number, 100) for number in range(60)})
    reasons = set(answer["left_out"].values())
    assert 10 < len(answer["left_out"]) < 60
    assert reasons == {"the workspace has no room: the server gives it 1,000,000 bytes of memory"}
    assert answer["missing"] == []
    assert small.memory <= 2_000_000
    with small.find("", "one").queried(()) as shown:
        assert len(shown.index) == 60 - len(answer["left_out"])


def test_a_server_without_workspaces_says_so(store: Callable[[int], Workspaces]) -> None:
    with pytest.raises(ApiError, match="workspace_bytes is 0") as caught:
        filled(store(0), "", "one", {})
    assert (caught.value.status, caught.value.code) == (403, "workspaces_off")


def test_a_saved_file_costs_one_update_of_the_index(monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = Workspace(ProjectIndex(), 10**9)
    files = {f"folder{number % 7}/{number}.py": source(number) for number in range(40)}
    for _ in workspace.steps(read_change({"files": listed(files), "texts": files}, whole=True)):
        pass
    updated, update = list[str](), workspace._index.update

    def counted(path: str, text: str | bytes) -> None:
        updated.append(path)
        update(path, text)

    monkeypatch.setattr(workspace._index, "update", counted)
    saved = {"folder3/3.py": f"{files['folder3/3.py']}    saved = 1\n"}
    body = {"files": listed(saved), "texts": saved, "revision": workspace.revision}
    steps = [*workspace.steps(read_change(body, whole=False))]
    assert workspace._index.text("folder3/3.py") == saved["folder3/3.py"]
    assert updated == ["folder3/3.py"]
    assert len(steps) <= 2  # one for the list, one for the text


# Work in the background


async def paused(store: Workspaces, files: dict[str, str]) -> tuple[asyncio.Task[Any], threading.Event]:
    """Begin to synchronise a workspace whose index waits in the middle until the event is set."""
    reached, goes_on = threading.Event(), threading.Event()
    await store.change("", "big", read_change({"files": {}}, whole=True))
    workspace = store.find("", "big")
    update = workspace._index.update

    def slow(path: str, text: str | bytes, *, passing: bool = False) -> None:
        update(path, text, passing=passing)
        if len(workspace._index) == 2:
            reached.set()
            goes_on.wait(20)

    workspace._index.update = slow  # type: ignore[method-assign]
    change = read_change({"files": listed(files), "texts": files}, whole=True)
    task = asyncio.ensure_future(store.change("", "big", change))
    await asyncio.to_thread(reached.wait, 20)
    return task, goes_on


def test_the_event_loop_continues_while_files_are_indexed(store: Callable[[int], Workspaces]) -> None:
    async def run() -> None:
        task, goes_on = await paused(store(CAP), {f"{number}.py": source(number) for number in range(4)})
        assert not task.done()
        goes_on.set()
        assert (await task)["missing"] == []

    asyncio.run(run())


def test_a_caret_during_a_synchronisation_uses_what_is_there(store: Callable[[int], Workspaces]) -> None:
    async def run() -> None:
        some = store(CAP)
        files = {f"{number}.py": source(number, 300) for number in range(200)}
        change = read_change({"files": listed(files), "texts": files}, whole=True)
        task = asyncio.ensure_future(some.change("", "big", change))
        sizes = set()
        while not task.done():
            await asyncio.sleep(0)
            with some.find("", "big").queried(()) as shown:
                sizes.add(len(shown.index))
        assert len(sizes) > 2

    asyncio.run(run())


def test_changes_of_two_workspaces_take_turns(store: Callable[[int], Workspaces]) -> None:
    async def run() -> None:
        some = store(CAP)
        files = {f"{number}.py": source(number, 300) for number in range(200)}
        big = read_change({"files": listed(files), "texts": files}, whole=True)
        small = read_change({"files": listed(FILES), "texts": FILES}, whole=True)
        first = asyncio.ensure_future(some.change("", "big", big))
        await asyncio.sleep(0.02)
        await some.change("", "small", small)
        assert not first.done()
        await first

    asyncio.run(run())


def test_a_tenant_makes_a_limited_number_of_changes_at_once(store: Callable[[int], Workspaces]) -> None:
    async def run() -> None:
        some = store(CAP)
        changes = [
            some.change(tenant, "one", read_change({"files": listed(FILES)}, whole=True))
            for tenant in ("a",) * 9 + ("b",)
        ]
        answers = await asyncio.gather(*changes, return_exceptions=True)
        refusals = [answer for answer in answers if isinstance(answer, ApiError)]
        assert [(each.status, each.retry_after) for each in refusals] == [(429, 1)]
        assert not isinstance(answers[-1], BaseException)

    asyncio.run(run())


def test_workspaces_write_nothing_to_disk(
    stack: tuple[str, TransformerService], tmp_path: Path, monkeypatch: Any
) -> None:
    opened: list[str] = []

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if watching and event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
            opened.append(str(arguments[0]))

    watching = True
    sys.addaudithook(watch)
    put(f"{stack[0]}/v1/workspaces/disk", {"files": listed(FILES), "texts": FILES})
    packed(f"{stack[0]}/v1/workspaces/disk")
    watching = False
    assert opened == []


def test_the_metrics_tell_number_memory_and_time(workspace: str, stack: tuple[str, TransformerService]) -> None:
    metrics = stack[1].workspaces._metrics
    assert metrics.number._value.get() == len(stack[1].workspaces) > 0
    assert metrics.bytes._value.get() == stack[1].workspaces.memory > 0
    assert metrics.sync._sum.get() > 0


def test_a_text_between_listing_and_the_next_belongs_to_the_list(workspace: str) -> None:
    """A text for an older list is refused, so that the index never holds what is not listed."""
    put(workspace, {"files": listed({"a.py": "new = 1\n"})})
    assert "listed is" in patch(workspace, {"texts": {"a.py": FILES["a.py"]}})["refused"]["a.py"]
    assert packed(workspace) == set()


@examples(25)
@given(
    lists=st.lists(
        st.tuples(
            st.booleans(),
            st.dictionaries(st.sampled_from(["a.py", "b.py", "c.py"]), st.none() | st.text("xy\n", max_size=6)),
            st.booleans(),
        ),
        max_size=6,
    )
)
def test_the_index_holds_only_texts_that_are_listed(lists: list[tuple[bool, dict[str, Any], bool]]) -> None:
    workspace = Workspace(ProjectIndex(), CAP)
    expected: dict[str, str] = {}
    for whole, files, honest in lists:
        texts = {path: text for path, text in files.items() if text is not None}
        expected = texts if whole else {**expected, **files}
        expected = {path: text for path, text in expected.items() if text is not None}
        body = {"files": listed(texts) | ({} if whole else dict.fromkeys(files.keys() - texts.keys()))}
        body["texts"] = {path: text if honest else f"{text}!" for path, text in texts.items()}
        for _ in workspace.steps(read_change({**body, "revision": workspace.revision}, whole=whole)):
            pass
        assert workspace.listed == {path: bytes.fromhex(digest(text)) for path, text in expected.items()}
        with workspace.queried(()) as shown:
            held = {path: shown.index.text(path) for path in shown.index.files}
        assert {path: expected[path] for path in held} == held
        assert held.keys() | workspace.missing == expected.keys()
