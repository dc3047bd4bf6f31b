"""Ask the context engine what of a project belongs into the prompt for a caret.

python examples/query_context.py --repo . --path infill/prompt.py --line 120
"""

import argparse
from pathlib import Path

from infill.context import ProjectIndex, retrieve
from infill.context.caret import read_source, split_at
from infill.prompt import FimRequest


def main() -> None:
    """Print the best items, at most three and the best last, as in the prompt."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repo", type=Path, default=Path(), help="folder of the project; default: this one")
    parser.add_argument("--path", default="infill/prompt.py", help="the file, relative to --repo")
    parser.add_argument("--line", type=int, default=120, help="line of the caret, from 1")
    options = parser.parse_args()

    index = ProjectIndex.from_repository(str(options.repo))
    prefix, suffix = split_at(read_source(options.repo / options.path), options.line, 1)
    request = FimRequest(path=options.path, prefix=prefix, suffix=suffix)
    with index.without(options.path):  # the current file is in the prompt anyway
        items = retrieve(index, request, k=3)
    for item in items:
        print(f"--- {item.path}, lines {item.first_line} to {item.last_line}, score {item.score:.2f}")
        print(item.text)


if __name__ == "__main__":
    main()
