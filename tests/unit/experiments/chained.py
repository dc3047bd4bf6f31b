"""A project whose files need each other's names, large enough for names to be rare in it."""

from pathlib import Path

LINES = """from elsewhere import offset_{next}


def prepare_{this}(value):
    first = value + {this}
    second = first * first
    if second > {this}:
        return second
    third = second - first
    return third


offset_{this} = {this}


def compute_{this}(value):
    result = prepare_{this}(value)
    for step in range(result):
        value = value + step
    value = compute_{next}(value)
    return value
"""


def chained_files(count: int = 130) -> dict[str, str]:
    """Text by path: each file has its own names, calls a function of the next file and imports another name of it."""
    return {
        f"pack{number % 2}/part{number % 4}/file_{number}.py": LINES.format(this=number, next=(number + 1) % count)
        for number in range(count)
    }


def write(folder: Path) -> Path:
    """Write the files to a folder; return it."""
    for path, text in chained_files().items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return folder
