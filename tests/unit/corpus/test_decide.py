"""Copies and splits over all shards: verdicts and rows speak of the same candidates."""

from pathlib import Path

import pytest

from infill.config import CorpusConfig
from infill.corpus import decide, shards
from infill.corpus.licences import Statement
from infill.corpus.quality import Removal
from infill.corpus.shards import FileJob
from infill.corpus.sources import SourceFile
from tests.unit.corpus.folders import write_files

TEXTS = {
    "a": {"1.py": "x = 1\n", "2.py": "x = 2\n"},
    "b": {"1.py": "x = 2\n", "2.py": "x = 3\n"},
    "c": {"1.py": "x = 1\n", "2.py": "x = 4\n"},
}
CONFIG = CorpusConfig()


@pytest.fixture
def scratch(tmp_path: Path) -> str:
    """Candidates of three repositories, a shard each; the first has two rejected files as well."""
    for number, (repo, files) in enumerate(TEXTS.items()):
        root = write_files(tmp_path / repo, files | ({"bad.py": b"\0", "blank.py": "\n"} if repo == "a" else {}))
        paths = sorted(path.name for path in root.iterdir())
        jobs = tuple(
            FileJob(repo=repo, root=str(root), licence=Statement("MIT"), file=SourceFile(path=path, size=100))
            for path in paths
        )
        shards.read(shards.Shard(number=number, jobs=jobs), CONFIG, str(tmp_path / "scratch"), str(tmp_path / "out"))
    return str(tmp_path / "scratch")


def test_the_first_of_equal_texts_is_kept_wherever_the_others_are(scratch: str) -> None:
    decision = decide.decide(scratch, 3, CONFIG)
    assert decision.removals == {2: Removal("duplicate", "a/2.py"), 4: Removal("duplicate", "a/1.py")}
    verdicts = list(decide.verdicts(scratch, 3, decision))
    assert [{row: removal.detail for row, removal in verdict.removals.items()} for verdict in verdicts] == [
        {},
        {0: "a/2.py"},
        {0: "a/1.py"},
    ]
    assert [[bool(split) for split in verdict.splits] for verdict in verdicts] == [
        [True, True],
        [False, True],
        [False, True],
    ]


def test_rows_are_written_as_the_verdicts_say(scratch: str) -> None:
    decision = decide.decide(scratch, 3, CONFIG)
    kept = [(row["repo"], row["path"], row["split"]) for row in decide.kept(scratch, 3, decision)]
    assert [row[:2] for row in kept] == [("a", "1.py"), ("a", "2.py"), ("b", "2.py"), ("c", "2.py")]
    assert {split for _, _, split in kept} == {"train", "validation", "test"}
    assert decision.unit == "repository"
    reasons = [row["reason"] for row in decide.removed(scratch, 3, decision)]
    assert reasons == ["binary", "blank", "duplicate", "duplicate"]


def test_files_are_split_when_repositories_are_too_few(scratch: str) -> None:
    decision = decide.decide(scratch, 1, CONFIG)
    assert decision.unit == "file"
    assert sorted(decision.split_of.values()) == ["test", "train"]
