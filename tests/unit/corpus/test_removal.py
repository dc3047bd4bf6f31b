"""Removal on request: the next run has nothing of a repository, and a model tells what it was trained on."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from infill import cli, manifest, storage
from infill.config import CorpusConfig, ExamplesConfig, PreferencesConfig, TokenizerConfig
from infill.corpus import lineage, opt_out, removal
from infill.errors import InputError
from tests.builders import run_stage, tiny_model
from tests.unit.corpus.folders import write_files, write_repositories
from tools.join_examples import JoinConfig, join

OLD = ["repo", "path", "language", "licence", "content", "sha256", "split"]
FIELDS = ("repository", "path", "documents", "repositories")


def run_stages(source: Path, out: Path, opted_out: str, model: str) -> list[str]:
    """The folders of corpus, examples and preferences."""
    corpus, words, holes, pairs = (str(out / name) for name in ("corpus", "tokenizer", "examples", "preferences"))
    run_stage("corpus", CorpusConfig(sources=(f"dir:{source}",), opt_out=opted_out), corpus)
    run_stage("tokenizer", TokenizerConfig(vocab_size=400), corpus, words)
    run_stage("examples", ExamplesConfig(holes=20, validation_holes=2, test_holes=2), corpus, words, output=holes)
    run_stage(
        "preferences",
        PreferencesConfig(holes=6, temperatures=(1.0,), samples=1, max_new_tokens=4, max_prompt_tokens=160),
        holes,
        model,
        output=pairs,
    )
    return [corpus, holes, pairs]


def texts(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def everything(folders: list[str]) -> str:
    """All rows of all tables in the folders, but those that tell what was removed."""
    files = [file for folder in folders for file in storage.list_files(folder, ".parquet") if "/removed/" not in file]
    return "\n".join(texts(storage.read_table(file).to_pylist()) for file in files)


def test_the_next_run_has_nothing_of_a_repository_nor_its_copies(tmp_path: Path) -> None:
    source = write_repositories(tmp_path / "my code", 6)
    file = source / "repo_1/package/module_0.py"
    exact, near = file.read_bytes(), file.read_bytes().replace(b"size", b"width", 1)
    write_files(source / "repo_3", {"copied from/one.py": exact})
    write_files(source / "repo_0", {"changed.py": near})
    model, listed = tiny_model(tmp_path / "model"), str(tmp_path / "the list.toml")
    noun = "circle_1_0", "parcel_1_0"
    before = everything(run_stages(source, tmp_path / "first", "", model))
    assert "repo_1" in before
    removal.remove(listed, "repo_1", reason="Ada")
    folders = run_stages(source, tmp_path / "second", listed, model)
    after = everything(folders)
    assert "repo_1" not in after
    assert not any(each in after for each in noun)
    removed = storage.read_table(f"{folders[0]}/removed").to_pylist()
    details = {f"{row['repo']}/{row['path']}": row["detail"] for row in removed if row["reason"] == "opted_out"}
    assert details["repo_1/package/module_0.py"] == "repo_1 (Ada)"
    assert details["repo_3/copied from/one.py"] == "repo_1 (Ada); a copy of repo_1/package/module_0.py"
    assert details["repo_0/changed.py"].startswith("repo_1 (Ada); a copy of repo_1/package/module_0.py, similarity 0.")


def test_a_path_is_left_out_and_the_rest_stays(tmp_path: Path) -> None:
    source, listed = write_repositories(tmp_path / "code", 4), str(tmp_path / "list.toml")
    removal.remove(listed, "repo_1", path="package/module_0.py")
    run_stage("corpus", CorpusConfig(sources=(f"dir:{source}",), opt_out=listed), str(tmp_path / "out"))
    documents = storage.read_table(str(tmp_path / "out" / "documents"), ["repo", "path"]).to_pylist()
    left = {row["path"] for row in documents if row["repo"] == "repo_1"}
    assert left == {"package/module_1.py", "package/module_2.py"}


@pytest.mark.parametrize(
    ("repository", "path", "reason"),
    [("acme/wid gets", "src/**", 'he said "no"\n\tand\\or \x7f'), ("größe", "", ""), ("*", "[a-c]?.py", "x" * 500)],
)
def test_an_entry_is_read_as_it_was_written(tmp_path: Path, repository: str, path: str, reason: str) -> None:
    listed = str(tmp_path / "new folder" / "list.toml")
    assert removal.remove(listed, repository, path=path, reason=reason)["added"]
    assert not removal.remove(listed, repository, path=path, reason="again")["added"]
    (entry,) = opt_out.load(listed).entries
    assert (entry.repository, entry.path, entry.reason, len(entry.date)) == (repository, path, reason, 10)


def test_what_is_in_the_list_stays(tmp_path: Path) -> None:
    listed = tmp_path / "list.toml"
    listed.write_bytes(b"\xef\xbb\xbf# ours\n[[opt_out]]\nrepository = 'a' # asked twice")
    removal.remove(str(listed), "b")
    assert listed.read_text(encoding="utf-8").startswith("# ours\n[[opt_out]]\nrepository = 'a' # asked twice\n\n")
    assert [entry.repository for entry in opt_out.load(str(listed)).entries] == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "problem"), [("opt_out = []", "by hand"), ("[[opt_out", "TOML"), ("x = 1", "nothing else")]
)
def test_a_list_that_cannot_be_extended_is_left_as_it_is(tmp_path: Path, text: str, problem: str) -> None:
    listed = tmp_path / "list.toml"
    listed.write_text(text)
    with pytest.raises(InputError, match=problem):
        removal.remove(str(listed), "b")
    assert listed.read_text() == text


@pytest.mark.parametrize(
    ("repository", "path", "problem"),
    [
        ("https://host.example/acme/widgets.git", "", "such as acme/widgets"),
        ("git@host.example:acme/widgets.git", "", "address"),
        ("a", "!x.py", "names no file"),
    ],
)
def test_names_that_no_repository_has_are_refused(tmp_path: Path, repository: str, path: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        removal.remove(str(tmp_path / "list.toml"), repository, path=path)
    assert not (tmp_path / "list.toml").exists()


def test_a_wrong_name_is_reported_with_the_nearest(tmp_path: Path) -> None:
    source, corpus = write_repositories(tmp_path / "code", 4), str(tmp_path / "corpus")
    run_stage("corpus", CorpusConfig(sources=(f"dir:{source}",)), corpus)
    listed = str(tmp_path / "list.toml")
    with pytest.raises(InputError, match="did you mean repo_1"):
        removal.remove(listed, "rep_1", corpus=corpus)
    with pytest.raises(InputError, match=r"did you mean package/module_2.py"):
        removal.remove(listed, "repo_1", path="modul_2.py", corpus=corpus)
    assert not Path(listed).exists()
    result = removal.remove(listed, "REPO_1", path="package/", corpus=corpus)
    assert (result["documents"], result["repositories"]) == (3, ["repo_1"])


def test_the_usual_list_counts_where_none_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv(opt_out.VARIABLE)
    assert opt_out.with_usual({}) == {}
    assert cli.main(["corpus", "remove", "--repository", "repo_1"]) == 0
    listed = str(tmp_path / "infill" / "opt-out.toml")
    assert opt_out.with_usual({"seed": 1}) == {"seed": 1, "corpus.opt_out": listed}
    assert opt_out.with_usual({"corpus.opt_out": ""}) == {"corpus.opt_out": ""}
    with pytest.raises(InputError, match="cluster cannot read"):
        opt_out.with_usual({}, on_cluster=True)
    monkeypatch.setenv(opt_out.VARIABLE, str(tmp_path / "missing.toml"))
    assert opt_out.with_usual({}) == {"corpus.opt_out": str(tmp_path / "missing.toml")}


# What a model was trained on


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a corpus, a tokenizer and examples, and a model whose manifest names the last two."""
    folder = tmp_path_factory.mktemp("run") / "store"
    source = write_repositories(folder.parent / "code", 4)
    corpus, words, holes = (str(folder / name / "key") for name in ("corpus", "tokenizer", "examples"))
    run_stage("corpus", CorpusConfig(sources=(f"dir:{source}",)), corpus)
    run_stage("tokenizer", TokenizerConfig(vocab_size=400), corpus, words)
    run_stage("examples", ExamplesConfig(holes=5, validation_holes=0, test_holes=0), corpus, words, output=holes)
    return folder


def trained(folder: Path, inputs: dict[str, str]) -> Path:
    """A model folder of the stage sft with these digests of inputs."""
    file = Path(tiny_model(folder)) / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"stage": "sft", "inputs": inputs}))
    return folder


def digest(folder: Path) -> str:
    return manifest.digest_of(str(folder))


def test_a_model_tells_its_repositories_and_the_opt_outs_it_predates(store: Path, tmp_path: Path) -> None:
    model = trained(store / "sft" / "key", {"examples": digest(store / "examples" / "key")})
    listed = str(tmp_path / "list.toml")
    for repository, path in (("repo_2", "package/module_1.py"), ("REPO_0", ""), ("other", "")):
        removal.remove(listed, repository, path=path)
    traced = lineage.trace(str(model))
    assert traced.missing == []
    names = {row["repository"]: row["documents"] for row in lineage.repositories(traced.corpora)}
    assert names == {"repo_0": 3, "repo_1": 3, "repo_2": 3, "repo_3": 3}
    predated = lineage.predated(traced.corpora, opt_out.load(listed))
    assert [[row[name] for name in FIELDS] for row in predated] == [
        ["repo_2", "package/module_1.py", 1, ["repo_2"]],
        ["REPO_0", "", 3, ["repo_0"]],
    ]
    shutil.rmtree(model.parent)


def test_an_adapter_tells_what_its_trainings_read(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = {"trainings": [{"stage": "sft", "inputs": {"examples": digest(store / "examples" / "key")}}]}
    storage.write_json(str(tmp_path / "my adapter" / "card.json"), card)
    assert [each["name"] for each in lineage.trace(str(tmp_path / "my adapter")).missing] == ["examples"]
    for place in (store, store.parent):  # a store, or the folder of the run
        traced = lineage.trace(str(tmp_path / "my adapter"), [str(place)])
        assert len(traced.corpora) == 1
        assert not traced.missing
    assert cli.main(["model", "explain", str(tmp_path / "my adapter")]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["complete"] is False
    assert "not complete" in captured.err


def test_joined_examples_tell_the_corpora_of_all(store: Path, tmp_path: Path) -> None:
    other = str(store / "corpus" / "other")
    run_stage("corpus", CorpusConfig(sources=(f"dir:{write_repositories(tmp_path / 'code', 2)}",)), other)
    holes = [str(store / "examples" / name) for name in ("key", "other")]
    config = ExamplesConfig(holes=5, validation_holes=0, test_holes=0)
    run_stage("examples", config, other, str(store / "tokenizer" / "key"), output=holes[1])
    join(holes, str(store / "examples" / "both"), JoinConfig())
    traced = lineage.trace(str(trained(store / "sft" / "joined", {"examples": digest(store / "examples" / "both")})))
    assert {each.uri for each in traced.corpora} == {str(store / "corpus" / "key"), other}
    for name in ("corpus/other", "examples/other", "examples/both", "sft"):
        shutil.rmtree(store / name)


def test_a_damaged_artifact_nearby_does_not_matter(store: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = trained(store / "sft" / "key", {"examples": digest(store / "examples" / "key")})
    (store / "dpo" / "damaged").mkdir(parents=True)
    (store / "dpo" / "damaged" / "manifest.json").write_text('{"stage":')
    traced = lineage.trace(str(model))
    assert (len(traced.corpora), traced.missing) == (1, [])
    assert f"{store}/dpo/damaged is skipped" in caplog.text
    for folder in (model.parent, store / "dpo"):
        shutil.rmtree(folder)


def test_a_corpus_of_an_old_version_has_no_commits(store: Path) -> None:
    model = trained(store / "sft" / "old", {"corpus": digest(store / "corpus" / "key")})
    (corpus,) = lineage.trace(str(model)).corpora
    table = storage.read_table(f"{corpus.uri}/documents").select(OLD)
    old = store.parent / "old" / "documents" / "part-00000.parquet"
    storage.write_table(str(old), table)
    corpus = dataclasses.replace(corpus, uri=str(old.parents[1]))
    assert {row["commit"] for row in lineage.repositories([corpus])} == {""}
    shutil.rmtree(model.parent)


def test_a_folder_that_tells_nothing_is_refused(tmp_path: Path) -> None:
    for place, problem in ((tmp_path, "does not tell"), (tmp_path / "no", "nothing at")):
        with pytest.raises(InputError, match=problem):
            lineage.trace(str(place))


def test_a_bill_lists_the_repositories_of_a_model_that_came_alone(store: Path, tmp_path: Path) -> None:
    model, alone = trained(store / "sft" / "bill", {"corpus": digest(store / "corpus" / "key")}), tmp_path / "alone"
    (tmp_path / "my folder").mkdir()
    written = str(tmp_path / "my folder" / "bom.cdx.json")
    assert cli.main(["model", "explain", str(model), "--bill", written]) == 0
    shutil.copytree(model, alone)
    shutil.copy(written, alone)
    shutil.rmtree(model.parent)
    result = lineage.explain(str(alone), opt_out.OptOuts((opt_out.entry("repo_0"), opt_out.entry("other"))))
    assert result["complete"] is False
    assert {row["repository"]: row["documents"] for row in result["repositories"]} == {f"repo_{n}": 3 for n in range(4)}
    assert [(row["repository"], row["documents"]) for row in result["opt_outs"]] == [("repo_0", 3)]
