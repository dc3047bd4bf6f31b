"""The published strategies follow their formulas; ours finds what the missing code needs."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infill.context import ProjectIndex, Query, rank
from infill.context.caret import first_lines, imports, last_lines
from infill.context.project_paths import ProjectPaths, stem
from infill.context.similarity import iou, line_set
from infill.context.strategies import MAX_FILE_LINES, STRATEGIES
from infill.errors import InputError
from tests import golden
from tests.properties import examples
from tests.unit.context import brute


@given(brute.projects, brute.texts, brute.texts, brute.paths)
@examples(60)
def test_every_strategy_keeps_the_rules(project: dict[str, str], prefix: str, suffix: str, path: str) -> None:
    index = ProjectIndex.from_documents(project.items())
    for strategy in STRATEGIES:
        items = rank(index, Query(path=path, prefix=prefix, suffix=suffix, recent=("a.py",)), strategy, k=4)
        assert len(items) <= 4
        shown = [(item.path, line) for item in items for line in range(item.first_line, item.last_line + 1)]
        assert len(shown) == len(set(shown))
        for item in items:
            assert item.path != path
            assert item.strategy == strategy
            lines = project[item.path].encode().split(b"\n")
            assert item.text.encode().removesuffix(b"\n") == b"\n".join(lines[item.first_line - 1 : item.last_line])
            assert index.holds(item)
        assert rank(index, Query(path=path, prefix=prefix, suffix=suffix), strategy, k=0) == []


@given(brute.projects, brute.texts)
@examples(60)
def test_iou_ranks_files_of_the_directory_by_lines(project: dict[str, str], prefix: str) -> None:
    items = rank(ProjectIndex.from_documents(project.items()), Query(path="lib/x.py", prefix=prefix, suffix=""), "iou")
    scores = {path: iou(line_set(prefix.encode()), line_set(text.encode())) for path, text in project.items()}
    beside = [path for path in project if path.rpartition("/")[0] == "lib"]
    assert [item.path for item in items] == sorted(beside, key=lambda path: (-scores[path], path))


@given(brute.projects)
@examples(30)
def test_path_distance_goes_breadth_first(project: dict[str, str]) -> None:
    items = rank(
        ProjectIndex.from_documents(project.items()), Query(path="lib/x.py", prefix="", suffix=""), "path_distance"
    )
    assert [item.path for item in items] == sorted(
        project, key=lambda path: (brute.path_distance("lib/x.py", path), path)
    )


@pytest.mark.parametrize(
    ("one", "other", "hops"),
    [("a.py", "b.py", 0), ("a/x.py", "y.py", 1), ("a/b/x.py", "a/c/y.py", 2), ("a/x.py", "b/c/y.py", 3)],
)
def test_path_distance(one: str, other: str, hops: int) -> None:
    assert ProjectPaths([other]).distances(one) == ProjectPaths([one]).distances(other) == hops


FOLDERS = st.lists(st.sampled_from(["a", "b", "b.c", ""]), max_size=3).map(lambda names: "/".join([*names, "x.py"]))


@given(st.lists(FOLDERS, max_size=12), FOLDERS)
def test_distances_are_those_of_pairs(paths: list[str], current: str) -> None:
    expected = [brute.path_distance(current, path) for path in paths]
    assert ProjectPaths(paths).distances(current).tolist() == expected


@examples(100)
@given(
    paths=st.lists(st.text("ab/", max_size=5), unique=True, max_size=12),
    first=st.integers(0, 12),
    used=st.sets(st.sampled_from(["ranks", "stems", "folders"])),
)
def test_paths_that_are_extended_are_those_that_are_computed_at_once(
    paths: list[str], first: int, used: set[str]
) -> None:
    whole, part = ProjectPaths(paths), ProjectPaths(paths[:first])
    for name in used:
        getattr(part, name)
    extended = part.extended(paths).extended(paths)
    assert extended.ranks.tolist() == whole.ranks.tolist()
    assert extended.stems == whole.stems
    for path in (*paths, "a/b/c"):
        assert extended.distances(path).tolist() == whole.distances(path).tolist()


def test_rag_compares_bpe_tokens_and_takes_recent_files() -> None:
    far = {f"near/{number:03}.py": "unrelated\n" for number in range(60)} | {"far/away/deep.py": "parcel_area = 1\n"}
    index = ProjectIndex.from_documents(far.items(), golden.ENCODER.encode)
    query = Query(path="near/main.py", prefix="parcel_area", suffix="")
    assert "far/away/deep.py" not in [item.path for item in rank(index, query, "rag", k=60)]
    best = rank(index, replace(query, recent=("far/away/deep.py",)), "rag", k=60)[0]
    assert best.path == "far/away/deep.py"
    tokens = set(golden.ENCODER.encode("parcel_area = 1\n"))
    asked = set(golden.ENCODER.encode("parcel_area\n"))
    assert best.score == len(tokens & asked) / len(tokens | asked)


def test_a_long_file_gives_its_first_lines() -> None:
    index = ProjectIndex.from_documents([("a.py", "x\n" * 1_000)])
    (item,) = rank(index, Query(path="b.py", prefix="x\n", suffix=""), "iou")
    assert item.last_line == item.text.count("\n") == MAX_FILE_LINES


STORE = "class ParcelStore:\n    def open_parcel(self, name):\n        return self.read_label(name)\n"
USE = """from store import ParcelStore


def ship(store: ParcelStore):
    parcel = store.open_parcel('a')
    label = """


def noise(count: int) -> dict[str, str]:
    words = ["river", "stone", "cloud", "lamp", "paper", "metal", "garden", "window"]
    return {
        f"noise/{number}.py": "".join(f"def {word}_{number}():\n    return '{word}'\n\n\n" for word in words)
        for number in range(count)
    }


def test_ours_finds_what_the_missing_code_needs() -> None:
    index = ProjectIndex.from_documents((noise(40) | {"lib/store.py": STORE, "app/use.py": USE}).items())
    items = rank(index, Query(path="app/use.py", prefix=USE, suffix="\n"), "infill")
    assert items[0].path == "lib/store.py"
    assert "read_label" in items[0].text


def test_ours_takes_no_copy_of_what_it_has() -> None:
    copies = {f"copy/{number}.py": STORE for number in range(5)} | {
        "other.py": "def open_parcel(): return weigh_parcel()\n"
    }
    index = ProjectIndex.from_documents((noise(40) | copies).items())
    items = rank(index, Query(path="app/use.py", prefix=USE, suffix="\n"), "infill", k=2)
    assert [item.path for item in items] == ["copy/0.py", "other.py"]


def test_near_imported_and_recent_files_come_first_among_equals() -> None:
    same = dict.fromkeys(("zz/near/a.py", "aa/far/b.py", "aa/far/store.py"), "parcel_area = compute_area()\n")
    index = ProjectIndex.from_documents((noise(40) | same).items())
    query = Query(path="zz/near/main.py", prefix="parcel_area", suffix="")
    assert rank(index, query, "infill", k=1)[0].path == "zz/near/a.py"
    query = Query(path="main.py", prefix="parcel_area", suffix="")
    assert rank(index, query, "infill", k=1)[0].path == "aa/far/b.py"
    assert rank(index, replace(query, prefix="import store\nparcel_area"), "infill", k=1)[0].path == "aa/far/store.py"
    assert rank(index, replace(query, recent=("zz/near/a.py",)), "infill", k=1)[0].path == "zz/near/a.py"


def test_unknown_strategy_names_the_known_ones() -> None:
    with pytest.raises(InputError, match="path_distance"):
        rank(ProjectIndex(), Query(path="a.py", prefix="", suffix=""), "best")


def test_lines_around_the_caret() -> None:
    text = "one\ntwo\nthree\nfo"
    assert [last_lines(text, count) for count in (0, 1, 9)] == ["fo", "three\nfo", text]
    assert [first_lines("ur\nfive\nsix", count) for count in (0, 1, 9)] == ["ur\n", "ur\nfive\n", "ur\nfive\nsix"]
    assert last_lines("", 3) == first_lines("", 3) == ""


@pytest.mark.parametrize(
    "line",
    [
        "from app.store import Store",
        "import { Store } from './store'",
        "const store = require('./store')",
        '#include "store.h"',
        "use crate::store::Store;",
        "using App.Store;",
    ],
)
def test_imports_are_seen(line: str) -> None:
    assert "tore" in imports(f"// first\n{line}\nstore();\n")
    assert imports("store = 1\n") == ""


@pytest.mark.parametrize(("path", "name"), [("a/store.test.ts", "store"), ("a/b/__init__.py", "b"), ("index.js", "")])
def test_stem(path: str, name: str) -> None:
    assert stem(path) == name


STEPS = st.one_of(st.sampled_from([*brute.WORDS, "unheard", " ", "\n", "al"]), st.tuples(brute.paths, brute.texts))


@given(brute.projects, brute.texts, brute.texts, st.lists(STEPS, max_size=8), st.sampled_from([(), ("a.py",)]))
@examples(100)
def test_a_remembered_ranking_is_that_of_a_new_index(
    project: dict[str, str], prefix: str, suffix: str, steps: list[str | tuple[str, str]], recent: tuple[str, ...]
) -> None:
    index, files = ProjectIndex.from_documents(project.items()), dict(project)
    for step in steps:
        if isinstance(step, str):
            prefix += step
        else:
            index.update(*step)
            files |= [step]
        for asked in ((), recent):
            query = Query(path="lib/x.py", prefix=prefix, suffix=suffix, recent=asked)
            assert rank(index, query, "infill", 4) == rank(
                ProjectIndex.from_documents(files.items()), query, "infill", 4
            )


def test_an_unknown_word_changes_nothing_of_the_ranking() -> None:
    index = ProjectIndex.from_documents([("a.py", "def alpha(beta):\n    return beta\n"), ("b.py", "gamma = 1\n")])
    first, second = (
        rank(index, Query(path="c.py", prefix=f"alpha({word}", suffix=")\n"), "infill") for word in "xyz"[:2]
    )
    assert first
    assert all(one is other for one, other in zip(first, second, strict=True))
