"""The simple entry that examples, evaluation and serving share."""

import pytest

from infill.context import ProjectIndex, retrieve
from infill.errors import InputError
from infill.prompt import FimRequest

FILES = {
    "app/main.py": "from app.store import open_store\n\nstore = open_store()\n",
    "app/store.py": "class Store:\n    pass\n\n\ndef open_store():\n    return Store()\n",
    "lib/other.py": "def unrelated():\n    return 1\n",
}
REQUEST = FimRequest(path="app/main.py", prefix="from app.store import open_store\n\nstore = open", suffix="()\n")


@pytest.mark.parametrize("strategy", ["iou", "path_distance", "rag", "infill"])
def test_nearest_is_last_and_current_file_absent(strategy: str) -> None:
    items = retrieve(ProjectIndex.from_documents(FILES.items()), REQUEST, strategy=strategy)
    assert items[-1].path == "app/store.py"
    assert items[-1].text == FILES["app/store.py"]
    assert all(item.path != REQUEST.path for item in items)


def test_no_strategy_no_context() -> None:
    assert retrieve(ProjectIndex.from_documents(FILES.items()), REQUEST, strategy="none") == ()


def test_unknown_strategy_names_the_known_ones() -> None:
    with pytest.raises(InputError, match="infill"):
        retrieve(ProjectIndex(), REQUEST, strategy="best")
