"""A model folder's GGUF file in llama.cpp itself: the same greedy tokens, the same tokenizer, the converter's tensors.

    npm install --prefix FOLDER node-llama-cpp@3.22.1 && pip install sentencepiece
    python -m tests.e2e.llama_cpp MODEL --examples EXAMPLES --npm FOLDER

Needs node 20, that package, which carries llama.cpp for CPUs, and what llama.cpp's converter imports; so it is not
a part of the test suite, whose hermetic half is `tests/unit/train/test_gguf.py`. The last line is one JSON object; the
exit status is 1 where llama.cpp differs.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from infill.artifacts.examples import read_holes, request_of
from infill.evaluate.generation import Generator
from infill.train.gguf import export

PROMPTS = 10
PROMPT_TOKENS = 512
NEW_TOKENS = 64


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, print, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="a model folder")
    parser.add_argument("--examples", required=True, help="the examples artifact whose test holes are completed")
    parser.add_argument("--npm", type=Path, required=True, help="folder with node_modules/node-llama-cpp")
    options = parser.parse_args(arguments)
    generator = Generator(options.model)
    rows = read_holes(options.examples, "test", PROMPTS).to_pylist()
    budget = min(PROMPT_TOKENS, generator.context_length - NEW_TOKENS)
    prompts = [generator.prompt(request_of(row), budget) for row in rows]
    expected = [outcome.ids for outcome in generator.generate(prompts, max_new_tokens=NEW_TOKENS)]
    texts = [text for row in rows for text in (row["prefix"], row["middle"], row["suffix"], *_odd(row))]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models = {kind: folder / f"{kind}.gguf" for kind in ("f32", "f16", "q8_0")}
        for kind, file in models.items():
            export(str(options.model), file, kind)
        request = {
            "models": {kind: str(file) for kind, file in models.items()},
            "prompts": prompts,
            "texts": texts,
            "stops": sorted(generator.stop_ids),
            "limit": NEW_TOKENS,
        }
        outcome = _ask(options.npm, folder / "request.json", request)
        converter = _converted(options.npm, options.model, models["f32"], folder)
    result = {"llama_cpp": outcome["llama"], "prompts": len(prompts), "texts": len(texts), "converter": converter}
    for kind, answer in outcome["answers"].items():
        same = [mine == other for mine, other in zip(expected, answer["completions"], strict=True)]
        result[f"same_tokens_{kind}"] = sum(same)
        result[f"ends_generation_{kind}"] = answer["eog"]
    mine = [generator.encoder.encode(text) for text in texts]
    result["same_text_ids"] = sum(a == b for a, b in zip(mine, outcome["answers"]["f32"]["tokens"], strict=True))
    result["tokens"] = sum(map(len, expected))
    print(json.dumps(result))  # noqa: T201
    return int(result["same_tokens_f32"] < len(prompts) or result["same_text_ids"] < len(texts))


def _odd(row: dict[str, Any]) -> Iterator[str]:
    """Texts on which tokenizers differ: names of control tokens, digits, blanks, other scripts, line ends."""
    yield f"<fim_middle>{row['path']}<|endoftext|> 12345  \t\r\n\r\n   x"
    yield f"{row['middle']}\u00e9\u6f22\u5b57\U0001f600\u0301 don't WE'LL \u00a0\u2028 \u0660\u0661"


def _ask(npm: Path, file: Path, request: dict[str, Any]) -> dict[str, Any]:
    file.write_text(json.dumps(request))
    script, target = Path(__file__).with_suffix(".mjs"), file.with_name("answer.json")
    done = subprocess.run(["node", script, npm.resolve(), file, target], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"node failed; is node-llama-cpp in {npm}/node_modules?\n{done.stderr[-4000:]}")
    answer: dict[str, Any] = json.loads(target.read_text())
    return answer


def _converted(npm: Path, model: Path, ours: Path, folder: Path) -> str:
    """What llama.cpp's own converter, of the sources in the package, makes of the model, compared with our file.

    It gets the pre-tokenizer's name, which it cannot know of a tokenizer of our own.
    """
    bundle = npm / "node_modules" / "node-llama-cpp" / "llama" / "gitRelease.bundle"
    sources, theirs = folder / "llama.cpp", folder / "converted.gguf"
    subprocess.run(["git", "clone", "--quiet", bundle, sources], check=True, capture_output=True)
    pre = gguf.GGUFReader(ours).fields["tokenizer.ggml.pre"].contents()
    code = f"""import runpy, sys
sys.path.insert(0, {str(sources)!r}); sys.path.insert(1, {str(sources / "gguf-py")!r})
from conversion import base
base.TextModel.get_vocab_base_pre = lambda *_: {pre!r}
sys.argv = ['convert', {str(model)!r}, '--outtype', 'f32', '--outfile', {str(theirs)!r}]
runpy.run_path({str(sources / "convert_hf_to_gguf.py")!r}, run_name='__main__')
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode:
        return f"failed: {done.stderr.strip().splitlines()[-1]}"
    return ", ".join(_differences(ours, theirs)) or "the same"


def _differences(ours: Path, theirs: Path) -> Iterator[str]:
    """Tensors and settings of the converter's file that ours has not, or has otherwise."""
    mine, other = gguf.GGUFReader(ours), gguf.GGUFReader(theirs)
    known = {tensor.name: tensor.data for tensor in mine.tensors}
    for tensor in other.tensors:
        if tensor.name not in known or not np.array_equal(known[tensor.name], tensor.data):
            yield f"tensor {tensor.name}"
    for name, field in other.fields.items():
        if name.startswith(("GGUF.", "general.")):
            continue
        with contextlib.suppress(KeyError):
            if mine.fields[name].contents() == field.contents():
                continue
        yield f"{name}={str(field.contents())[:40]}"


if __name__ == "__main__":
    sys.exit(main())
