"""What is saved comes back; what is damaged does not."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infill.context import ProjectIndex, Query, rank, retrieve, store
from infill.prompt import FimRequest
from tests.properties import examples
from tests.unit.context import brute


@given(brute.projects, brute.paths, brute.texts, st.data())
@examples(25)
def test_a_loaded_index_answers_and_continues_like_the_saved_one(
    tmp_path_factory: pytest.TempPathFactory, project: dict[str, str], path: str, text: str, data: st.DataObject
) -> None:
    index = ProjectIndex.from_documents(project.items())
    index.remove(path)
    file = tmp_path_factory.mktemp("index") / "saved"
    store.save(index, str(file))
    loaded = store.load(str(file))
    assert loaded is not None
    assert brute.contents(loaded) == brute.contents(index)
    index.update("new.py", text)
    loaded.update("new.py", text)
    assert brute.contents(loaded) == brute.contents(index)
    assert rank(loaded, Query(path="q.py", prefix=text, suffix=""), "infill") == rank(
        index, Query(path="q.py", prefix=text, suffix=""), "infill"
    )
    for each, whole in project.items():
        request = FimRequest(path=each, prefix=whole, suffix="")
        assert retrieve(loaded, request) == retrieve(index, request), "the current file is recognised"
    content = bytearray(file.read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] ^= 1 << data.draw(st.integers(0, 7))
    file.write_bytes(content)
    assert store.load(str(file)) is None


def test_a_repository_is_read_again_only_where_it_changed(tmp_path: Path) -> None:
    root, saved = tmp_path / "repo", str(tmp_path / "saved")
    root.mkdir()
    (root / "a.py").write_text("alpha = 1\n")
    (root / "b.py").write_text("beta = 1\n")
    assert len(store.open_repository(root, saved)) == 2
    (root / "a.py").write_text("gamma = 22\n")
    (root / "b.py").unlink()
    (root / "c.py").write_text("delta = 1\n")
    index = store.load(saved)
    assert index is not None
    assert index.refresh(root) == 3
    assert index.refresh(root) == 0
    assert {path: index.text(path) for path in index.files} == {"a.py": "gamma = 22\n", "c.py": "delta = 1\n"}


@pytest.mark.parametrize("content", [b"", b"infill index", b"infill index 999\n" + bytes(100)])
def test_a_damaged_file_is_made_again(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo" / "a.py").write_text("alpha = 1\n")
    (tmp_path / "saved").write_bytes(content)
    assert len(store.open_repository(tmp_path / "repo", str(tmp_path / "saved"))) == 1
    assert store.load(str(tmp_path / "saved")) is not None


def test_nothing_saved_nothing_loaded(tmp_path: Path) -> None:
    assert store.load(str(tmp_path / "none")) is None
