"""The tokenizer stage: reserved ids, lossless text, one digit a token, the same file for the same corpus."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from infill import manifest, prompt, storage, tokenizer
from infill.config import TokenizerConfig
from infill.errors import InputError
from tests.builders import run_stage, tiny_repositories, write_documents

CONFIG = TokenizerConfig(vocab_size=600, max_bytes=1_000_000)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> str:
    files = tiny_repositories(6)
    files["repo_0"]["notes.md"] = "# Größe in €: 日本語 \U0001f4c8\r\n\tx\n" * 3
    files["repo_5"]["control.py"] = "FIM = '<fim_middle><|endoftext|>'  # 12345\n"
    return write_documents(tmp_path_factory.mktemp("corpus"), files)


@pytest.fixture(scope="module")
def trained(corpus: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("tokenizer")
    run_stage("tokenizer", CONFIG, corpus, str(output))
    return output


@pytest.fixture(scope="module")
def encoder(trained: Path) -> prompt.Encoder:
    return prompt.load_encoder(trained)


def checkpoint(folder: Path, tokens: list[str], normalizer: Any = None) -> Path:
    """A folder with the tokenizer of somebody else's model: `tokens` are its special tokens, after the others."""
    other = Tokenizer(models.BPE())
    other.normalizer = normalizer
    other.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    other.decoder = decoders.ByteLevel()
    other.train_from_iterator(
        ["x = 1"], trainers.BpeTrainer(show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    )
    other.add_special_tokens(tokens)
    folder.mkdir(parents=True, exist_ok=True)
    other.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def test_reserved_tokens_have_the_first_ids(trained: Path) -> None:
    vocabulary = Tokenizer.from_file(str(trained / "tokenizer.json")).get_vocab()
    assert [vocabulary[token] for token in prompt.RESERVED_TOKENS] == list(range(32))
    assert prompt.load_format(trained) == prompt.infill_format()


@given(st.binary())
def test_any_bytes_come_back(encoder: prompt.Encoder, data: bytes) -> None:
    """Each byte has a token, so no tokenizer of ours lacks one; those of a text join to its bytes."""
    vocabulary = encoder.json["model"]["vocab"]
    spelled = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    (piece,) = spelled.pre_tokenize_str(data.decode("latin-1")) if data else [("", None)]
    ids = [vocabulary[letter] for letter in piece[0]]
    assert encoder.decode(ids) == data.decode("latin-1")
    text = data.decode("latin-1")
    assert encoder.decode(encoder.encode(text)).encode("latin-1") == data


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 10**6), min_size=1), st.integers(0, 10**6))
def test_the_shares_of_a_sample_fill_it_and_grow_with_it(sizes: dict[str, int], most: int) -> None:
    for exponent in (0.0, 0.7, 1.0):
        small, large = (tokenizer.shares(sizes, total, exponent) for total in (most, 2 * most))
        assert all(small[name] <= large[name] <= sizes[name] for name in sizes)
        assert min(most, sum(sizes.values())) - len(sizes) <= sum(small.values()) <= most
        assert (
            sorted(sizes, key=lambda name: (small[name], sizes[name]))
            == sorted(sizes, key=lambda name: (sizes[name], small[name]))
            or exponent == 0
        )


def test_a_rare_language_has_more_than_its_share(tmp_path: Path) -> None:
    names = ["c"] * 10 + ["python"] * 90
    columns = {
        "language": names,
        "path": [str(number) for number in range(100)],
        "sha256": [f"{number * 0x9E3779B97F4A7C15 % 2**64:016x}" for number in range(100)],
        "content": [f"x = {number:096}" for number in range(100)],
        "split": ["train"] * 100,
    }
    storage.write_table(str(tmp_path / "documents" / "part-00000.parquet"), pa.table(columns))

    def share(exponent: float) -> float:
        config = TokenizerConfig(max_bytes=4_000, language_exponent=exponent)
        languages = [each.language for each in tokenizer.training_sample(config, str(tmp_path))]
        assert len(languages) >= 30
        return languages.count("c") / len(languages)

    assert share(1.0) < share(0.7) < share(0.0) <= 0.5


@given(st.text())
def test_every_text_comes_back_and_holds_no_control_token(encoder: prompt.Encoder, text: str) -> None:
    ids = encoder.encode(text)
    assert encoder.decode(ids) == text
    assert all(token >= 32 for token in ids)


def test_text_that_spells_a_control_token_is_text(encoder: prompt.Encoder) -> None:
    text = "".join(prompt.RESERVED_TOKENS)
    assert min(encoder.encode(text)) >= 32
    assert encoder.decode(encoder.encode(text)) == text


def test_digits_stand_alone_and_blanks_together(encoder: prompt.Encoder) -> None:
    assert len(encoder.encode("1234567")) == 7
    assert len(encoder.encode("\n    ")) < len("\n    ")


def test_no_token_crosses_the_pattern(trained: Path) -> None:
    vocabulary = json.loads((trained / "tokenizer.json").read_text())["model"]["vocab"]
    letters_then_digits = [
        token for token in vocabulary if re.search(r"[A-Za-z][0-9]|[0-9]{2}", token) and "<" not in token
    ]
    assert letters_then_digits == []


def test_figures_are_measured_on_held_out_repositories(corpus: str, trained: Path) -> None:
    report = storage.read_json(str(trained / "report.json"))
    metrics = manifest.load(str(trained)).metrics
    assert metrics == {name: report[name] for name in tokenizer.METRICS}
    assert report["held_out"] is True
    assert report["round_trip"] == 1
    assert report["documents"] == 7  # of repo_4 and repo_5
    assert 1 < report["bytes_per_token"] < 8
    assert 0 <= report["unused_share"] < 1
    assert report["tokens_per_prompt"]["p50"] > report["tokens_per_document"]["p50"] > 0
    assert sum(report["sample_bytes_by_language"].values()) == report["train_bytes"]
    assert report["train_bytes"] == sum(tokenizer.sizes(corpus, "train").values())
    assert report["tokens"] == pytest.approx(report["train_bytes"] / report["bytes_per_token"], rel=0.3)


def test_another_process_makes_the_same_file(corpus: str, trained: Path, tmp_path: Path) -> None:
    script = (
        "from infill.config import TokenizerConfig; from tests.builders import run_stage; "
        f"run_stage('tokenizer', TokenizerConfig(vocab_size=600, max_bytes=1_000_000), {corpus!r}, {str(tmp_path)!r})"
    )
    environment = {"PYTHONHASHSEED": "7", "RAYON_NUM_THREADS": "1"}
    root = Path(tokenizer.__file__).parents[1]
    subprocess.run([sys.executable, "-c", script], check=True, env=environment, cwd=root)
    assert manifest.load(str(tmp_path)).files == manifest.load(str(trained)).files


def test_only_the_train_split_teaches(corpus: str) -> None:
    texts = [each.text for each in tokenizer.sample(corpus, splits=("train",), max_bytes=10**9, seed=0)]
    assert len(texts) == 13  # repo_0 to repo_3
    assert not any("FIM = " in text for text in texts)


def test_a_smaller_sample_is_a_part_of_a_larger_one(corpus: str) -> None:
    small, large = (
        [each.text for each in tokenizer.sample(corpus, splits=("train",), max_bytes=size, seed=3)]
        for size in (4_000, 9_000)
    )
    assert 0 < sum(len(text.encode()) for text in small) <= 4_000
    assert sum(len(text.encode()) for text in large) <= 9_000
    assert [text for text in large if text in small] == small
    other = [each.text for each in tokenizer.sample(corpus, splits=("train",), max_bytes=4_000, seed=4)]
    assert other != small


def test_transformers_loads_it(trained: Path) -> None:
    transformers = pytest.importorskip("transformers")
    loaded = transformers.AutoTokenizer.from_pretrained(trained)
    assert (loaded.eos_token_id, loaded.pad_token_id, len(loaded)) == (0, 4, prompt.load_encoder(trained).vocab_size)
    text = "def f(x):\n    return x + 12  # é\n"
    assert loaded(text)["input_ids"] == prompt.load_encoder(trained).encode(text)
    assert loaded.decode(loaded(text)["input_ids"]) == text


MELLUM = ["<|endoftext|>", "<fim_prefix>", "<fim_middle>", "<fim_suffix>", "<fim_pad>", "<filename>"]
STARCODER = [*MELLUM[:-1], "<file_sep>"]
QWEN = ["<|endoftext|>", *(f"<|{token[1:-1]}|>" for token in STARCODER[1:])]


@pytest.mark.parametrize(("name", "tokens"), [("mellum", MELLUM), ("starcoder2", STARCODER), ("qwen2.5-coder", QWEN)])
def test_a_base_model_brings_its_tokenizer(corpus: str, tmp_path: Path, name: str, tokens: list[str]) -> None:
    base = checkpoint(tmp_path / "base", tokens)
    metrics = run_stage("tokenizer", TokenizerConfig(base_model=str(base)), corpus, str(tmp_path / "out"))
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()
    assert (tmp_path / "out" / "tokenizer_config.json").exists()
    assert prompt.load_format(tmp_path / "out").name == name
    assert metrics["round_trip"] == 1
    assert metrics["tokens"] > 0


def test_a_base_model_that_loses_text_is_reported_not_refused(corpus: str, tmp_path: Path) -> None:
    base = checkpoint(tmp_path / "base", MELLUM, normalizer=normalizers.Lowercase())
    assert (
        run_stage("tokenizer", TokenizerConfig(base_model=str(base)), corpus, str(tmp_path / "out"))["round_trip"] < 1
    )


def test_another_base_model_makes_another_tokenizer(corpus: str, tmp_path: Path) -> None:
    base, config = tmp_path / "base", TokenizerConfig(base_model=str(tmp_path / "base"))
    run_stage("tokenizer", config, corpus, str(checkpoint(base, MELLUM).parent / "out"))
    checkpoint(base, QWEN)
    with pytest.raises(InputError, match="another tokenizer artifact"):
        run_stage("tokenizer", config, corpus, str(tmp_path / "out"))


@pytest.mark.parametrize(
    ("tokens", "message"),
    [(["<|endoftext|>", "<pad>"], "no fill-in-the-middle tokens"), (MELLUM[:3], "no fill-in-the-middle tokens")],
)
def test_a_base_model_without_fim_tokens_is_refused(
    corpus: str, tmp_path: Path, tokens: list[str], message: str
) -> None:
    base = checkpoint(tmp_path / "base", tokens)
    with pytest.raises(InputError, match=message):
        run_stage("tokenizer", TokenizerConfig(base_model=str(base)), corpus, str(tmp_path / "out"))
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_folder_that_is_not_a_checkpoint_is_refused(corpus: str, tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "missing"):
        with pytest.raises(InputError, match=r"tokenizer\.json|nothing at"):
            run_stage("tokenizer", TokenizerConfig(base_model=str(place)), corpus, str(tmp_path / "out"))


def test_a_corpus_without_training_text_is_refused(tmp_path: Path) -> None:
    files = tiny_repositories(1)
    corpus = write_documents(tmp_path / "corpus", files, splits={"repo_0": "test"})
    with pytest.raises(InputError, match="train split"):
        run_stage("tokenizer", CONFIG, corpus, str(tmp_path / "out"))
