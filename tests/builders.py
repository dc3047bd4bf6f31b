"""Tiny real things that tests share: a corpus, a tokenizer and a Llama, made in milliseconds.

Each builder makes a whole stage folder with its manifest and returns the folder's URI.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from infill import manifest
from infill.manifest import Manifest

SAMPLE: Final = '''"""{module} of {repo}: helpers round {noun}s."""

import os
from dataclasses import dataclass


@dataclass
class {Noun}:
    name: str
    size: int = 0

    def area(self, scale: float = 1.0) -> float:
        """Size times scale."""
        if scale < 0:
            raise ValueError("scale must not be negative")
        return self.size * scale


def read_{noun}s(folder: str) -> list[{Noun}]:
    found = []
    for name in sorted(os.listdir(folder)):
        if name.endswith(".{noun}"):
            found.append({Noun}(name=name, size=len(name)))
    return found


def largest_{noun}({noun}s: list[{Noun}]) -> {Noun} | None:
    best = None
    for candidate in {noun}s:
        if best is None or candidate.size > best.size:
            best = candidate
    return best
'''
"""A Python file with a class, loops and branches; `tiny_repositories` fills in the names in braces."""


@dataclass(frozen=True)
class _Built:
    """Stands where a stage's configuration would be in the manifest."""

    name: str


def tiny_repositories(count: int = 6, files: int = 3, *, unlike: bool = False) -> dict[str, dict[str, str]]:
    """Repository -> path -> text: `count` repositories of `files` Python files whose names differ.

    Some files of different repositories are near-duplicates; with `unlike` none are.
    """
    nouns = ["circle", "parcel", "record", "signal", "garden", "vessel", "ticket", "branch"]
    repositories: dict[str, dict[str, str]] = {}
    for number in range(count):
        repo = f"repo_{number}"
        repositories[repo] = {}
        for file in range(files):
            noun = nouns[(number + file) % len(nouns)] + f"_{number}_{file}" * unlike
            names = {"repo": repo, "module": f"module_{file}", "noun": noun, "Noun": noun.title()}
            repositories[repo][f"package/module_{file}.py"] = SAMPLE.format(**names)
    return repositories


def write_documents(
    folder: Path,
    files: Mapping[str, Mapping[str, str]],
    splits: Mapping[str, str] | None = None,
    language: str = "python",
) -> str:
    """A corpus stage folder with `files` (repository -> path -> text) in it; returns its URI.

    Their column `order` is that of `files`. `splits` gives the split of a repository. Without it the last repository is
    "test", the one before "validation", the rest "train".
    """
    splits = splits or _default_splits(list(files))
    rows = [
        {
            "repo": repo,
            "path": path,
            "language": language,
            "licence": "MIT",
            "content": text,
            "sha256": hashlib.sha256(text.encode()).hexdigest(),
            "split": splits.get(repo, "train"),
        }
        for repo, contents in files.items()
        for path, text in contents.items()
    ]
    columns = ["repo", "path", "language", "licence", "content", "sha256", "split"]
    table = pa.table({name: pa.array([row[name] for row in rows], pa.string()) for name in columns})
    order = [place for contents in files.values() for place in range(len(contents))]
    table = table.append_column("order", pa.array(order, pa.int32()))

    def body() -> Mapping[str, float]:
        from infill import storage

        storage.write_table(storage.join(str(folder), "documents", "part-00000.parquet"), table)
        return {"documents": float(len(rows))}

    return _stage_folder(folder, "corpus", body)


def tiny_tokenizer(folder: Path, vocab_size: int = 512) -> str:
    """A tokenizer stage folder (`tokenizer.json`, `prompt_format.json`): byte-level BPE trained on the samples."""

    def body() -> Mapping[str, float]:
        _write_tokenizer(folder, vocab_size)
        return {"vocab_size": float(vocab_size)}

    return _stage_folder(folder, "tokenizer", body)


def tiny_model(folder: Path, vocab_size: int = 512, context_length: int = 256, seed: int = 0) -> str:
    """A MODEL FOLDER with a Llama of width 32 and two layers with random weights, and the tiny tokenizer."""

    def body() -> Mapping[str, float]:
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

        _write_tokenizer(folder, vocab_size)
        config = LlamaConfig(
            vocab_size=vocab_size,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=context_length,
            tie_word_embeddings=True,
            bos_token_id=0,
            eos_token_id=0,
            pad_token_id=0,
            dtype="float32",
        )
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = LlamaForCausalLM(config)
        model.save_pretrained(folder)
        tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
            tokenizer_file=str(folder / "tokenizer.json"), eos_token="<|endoftext|>", pad_token="<|endoftext|>"
        )
        tokenizer.save_pretrained(folder)
        (folder / "README.md").write_text("# tiny\n", encoding="utf-8")
        return {"vocab_size": float(vocab_size)}

    return _stage_folder(folder, "pretrain", body)


def _default_splits(repos: list[str]) -> dict[str, str]:
    """The last repository for test, the one before for validation, the rest for training."""
    return {repo: ("test", "validation")[place] for place, repo in enumerate(reversed(repos)) if place < 2}


def _write_tokenizer(folder: Path, vocab_size: int) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    from infill import prompt

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(prompt.RESERVED_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = (text for files in tiny_repositories().values() for text in files.values())
    tokenizer.train_from_iterator(texts, trainer)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "prompt_format.json").write_text(json.dumps(prompt.infill_format().to_json()), encoding="utf-8")


def run_stage(name: str, settings: Any, *places: str, output: str = "") -> dict[str, float]:
    """Run a stage as the command line does, and return its metrics.

    `places` are the URIs of its inputs, in the order of the table, and then, unless it is `output`, its own folder.
    """
    from infill.stages import STAGES, execute

    *inputs, folder = (*places, output) if output else places
    named = dict(zip(STAGES[name].inputs, inputs, strict=True))
    return execute(name, settings, named, "", output=folder).metrics


def once(
    *,
    stage: str,
    version: int = 1,
    config: Any = None,
    inputs: Mapping[str, str] | None = None,
    output: str,
    body: Callable[[], Mapping[str, float]],
) -> Manifest:
    """Run `body` under a manifest, as the runner of stages does."""
    config, inputs = config or _Built(name=stage), inputs or {}
    key = manifest.key(stage, version, config, inputs)
    return manifest.once(stage=stage, version=version, key=key, config=config, inputs=inputs, output=output, body=body)


def _stage_folder(folder: Path, stage: str, body: Callable[[], Mapping[str, float]]) -> str:
    """Run `body` under a manifest, as the stage itself would."""
    once(stage=stage, config=_Built(name=folder.name), output=str(folder), body=body)
    return str(folder)
