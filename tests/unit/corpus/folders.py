"""Repositories on disk for the tests of the corpus."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.builders import tiny_repositories

MIT: Final = """MIT License

Copyright (c) 2024 Somebody

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.
"""
GPL: Final = """                    GNU GENERAL PUBLIC LICENSE
                       Version 3, 29 June 2007

 Everyone is permitted to copy and distribute verbatim copies
"""


def write_files(root: Path, files: Mapping[str, str | bytes]) -> Path:
    """Write `files` (path -> content) below `root`; returns `root`."""
    for path, content in files.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def write_repositories(folder: Path, count: int = 4, files: int = 3) -> Path:
    """`count` repositories under the MIT licence in `folder`, each with `files` Python files; returns `folder`.

    No two files are near-duplicates.
    """
    for name, contents in tiny_repositories(count, files, unlike=True).items():
        write_files(folder / name, {"LICENSE": MIT, **contents})
    return folder
