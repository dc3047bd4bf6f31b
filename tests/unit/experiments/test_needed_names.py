"""Hidden lines need what another file defines, and what the context has of it is counted."""

import pytest

from infill.context import ContextItem, ProjectIndex
from infill.experiments.needed_names import HiddenLines, coverage, fill, holes, holes_of_index, names
from tests.unit.experiments.chained import chained_files


@pytest.mark.parametrize("of_index", [False, True])
def test_hidden_lines_need_names_that_only_other_files_have(of_index: bool) -> None:
    project = chained_files()
    index = ProjectIndex.from_documents(project.items())

    def cut(seed: str) -> list[HiddenLines]:
        return holes_of_index(index, 20, seed) if of_index else holes(project, 20, seed)

    chosen = cut("a")
    assert chosen == cut("a")
    assert chosen != cut("b")
    assert len({(hole.query.path, hole.query.prefix) for hole in chosen}) == 20
    for hole in chosen:
        query = hole.query
        assert query.prefix + hole.middle + query.suffix == project[query.path]
        following = (int(query.path.rpartition("_")[2].removesuffix(".py")) + 1) % len(project)
        assert hole.wanted <= {f"compute_{following}", f"offset_{following}"}, "all else is in the file itself"
        assert not hole.wanted.intersection(names(query.prefix + query.suffix))


def test_common_names_and_names_without_a_definition_are_not_needed() -> None:
    common = {path: text.replace("compute_", "shared_") for path, text in chained_files().items()}
    common = {path: text + "value = undefined_anywhere(value)\n" for path, text in common.items()}
    wanted = {name for hole in holes(common, 30, "a") for name in hole.wanted}
    assert wanted
    assert all(name.startswith(("shared_", "offset_")) for name in wanted)
    assert {
        name for hole in holes_of_index(ProjectIndex.from_documents(common.items()), 30, "a") for name in hole.wanted
    }
    assert holes({"a.py": "alpha = 1\n"}, 5, "a") == holes_of_index(ProjectIndex(), 5, "a") == []


def test_context_is_filled_whole_items_best_first_and_covers_what_it_names() -> None:
    items = [ContextItem(path="a", text=text) for text in ("alpha beta", "gamma " * 9, "delta")]
    taken = fill(items, lambda text: len(names(text)), budget=7)
    assert [item.text for item in taken] == ["alpha beta", "delta"]
    assert coverage(frozenset(["alpha", "gamma"]), taken) == 0.5
