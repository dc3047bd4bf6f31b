"""The common parts of the pages for readers: an HTML file that needs no other, its style, tiles and units."""

from collections.abc import Iterable
from html import escape
from string import Template
from typing import Final

_STYLE: Final = """\
:root { color-scheme: light; --ink: #111827; --soft: #6b7280; --line: #e5e7eb; --pale: #f6f7f9; --accent: #2f6fab; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.5rem 5rem; max-width: 70rem; color: var(--ink); background: #fff;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { margin: 0; font-size: 1.9rem; letter-spacing: -0.02em; }
h2 { margin: 2.8rem 0 0.4rem; font-size: 1.2rem; }
h3 { margin: 1.4rem 0 0.2rem; font-size: 1rem; }
p { margin: 0.3rem 0 0.8rem; max-width: 62rem; }
.soft { color: var(--soft); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: 0.8rem; margin: 1.2rem 0; }
.tile { padding: 0.8rem 1rem; border: 1px solid var(--line); border-radius: 6px; }
.tile b { display: block; font-size: 1.45rem; font-weight: 600; letter-spacing: -0.01em; }
.tile span { color: var(--soft); font-size: 0.85rem; }
table { width: 100%; border-collapse: collapse; margin: 0.4rem 0 1rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.28rem 0.7rem 0.28rem 0; text-align: left; border-bottom: 1px solid var(--line);
  vertical-align: top; }
th { color: var(--soft); font-weight: 500; font-size: 0.88rem; }
td.number, th.number { text-align: right; white-space: nowrap; }
"""
_PAGE: Final = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
$style</style>
</head>
<body>
$body
</body>
</html>
""")


def render(title: str, body: str, style: str = "") -> str:
    """Return a page with the HTML `body`, in the common style and after that its own `style`."""
    return _PAGE.substitute(title=escape(title), style=_STYLE + style, body=body)


def tiles(figures: Iterable[tuple[str, str]]) -> str:
    """Return the most important figures, each a value and its name, as a row of tiles."""
    shown = (f'<div class="tile"><b>{escape(value)}</b><span>{escape(name)}</span></div>' for value, name in figures)
    return f'<div class="tiles">{"".join(shown)}</div>'


def size(count: float) -> str:
    """Return a number of bytes in decimal units: 950 B, 12.3 MB."""
    for unit_size, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= unit_size:
            return f"{count / unit_size:.1f} {unit}"
    return f"{count:.0f} B"


def duration(seconds: float) -> str:
    """Return a number of seconds as text: 3.2 s, 4 min 10 s, 2 h 5 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
