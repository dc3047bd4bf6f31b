import re

from tools import readme


def test_tree_is_that_of_the_code() -> None:
    text = readme.README.read_text()
    assert readme.updated(text) == text, "run: python -m tools.readme"


def test_commands_of_the_readme_exist() -> None:
    """Each `make` target that the README names is in the Makefile."""
    named = set(re.findall(r"`make ([a-z-]+)", readme.README.read_text()))
    targets = set(re.findall(r"^([a-z-]+):.*## ", (readme.ROOT / "Makefile").read_text(), re.MULTILINE))
    assert named
    assert named <= targets
