"""Serve a model, or what a finished run has deployed, and ask for one completion.

python examples/serve_and_complete.py out/mine
"""

import argparse
from pathlib import Path

import httpx

from pipelines.local import deployment_of
from serving.local import running

CARET = {
    "path": "shapes.py",
    "prompt": "from constants import PI\n\n\ndef area(radius):\n    return ",
    "suffix": "\n",
    "context": [{"path": "constants.py", "text": "PI = 3.14159\n\n\ndef area_of_square(side):\n    return side**2\n"}],
    "max_tokens": 16,
}


def main() -> None:
    """Print the completion and what stood in its prompt."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", type=Path, help="folder of a run, or of a model")
    options = parser.parse_args()

    is_run = (options.target / "store").is_dir()
    with running(deployment_of(options.target) if is_run else str(options.target)) as url:
        answer = httpx.post(f"{url}/v1/completions", json=CARET, timeout=60, trust_env=False).json()
    print(CARET["prompt"] + answer["choices"][0]["text"])
    print(f"{answer['infill']['prompt_tokens']} tokens in the prompt, {answer['usage']['completion_tokens']} new")


if __name__ == "__main__":
    main()
