"""Blind comparison of completions by people: what is compared, the page for raters, and how far they agree."""
