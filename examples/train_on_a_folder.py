"""Run the whole pipeline on a folder of repositories, with settings of your own.

python examples/train_on_a_folder.py ~/code out/mine
"""

import argparse
from pathlib import Path

from pipelines import local


def main() -> None:
    """Print which model won and how it completes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("code", type=Path, help="folder with one folder per repository")
    parser.add_argument("out", type=Path, help="folder for everything that the run makes")
    parser.add_argument(
        "--preset", default="debug", help="default: %(default)s, which takes minutes and learns nothing"
    )
    options = parser.parse_args()

    settings = {"sources": [f"dir:{options.code}"], "seed": 3, "sft.train.steps": 4}
    summary = local.run(options.preset, settings, options.out)
    print(f"the winner is {summary['winner']}: {summary['model']}")
    for name, metrics in summary["evaluation"].items():
        match = metrics["exact_match"]
        print(f"{name:5} exact match {match['value']:.3f} [{match['low']:.3f}, {match['high']:.3f}]")


if __name__ == "__main__":
    main()
