"""Write the golden prompts again."""

import json
from dataclasses import asdict

from infill.context.packing import pack
from infill.prompt import ContextItem, FimRequest
from tests.golden import ENCODER, FORMATS, PROMPTS

LONG = "".join(f"value_{number} = compute({number})\n" for number in range(60))
HELPER = ContextItem(path="lib/helper.py", text="def helper(x):\n    return x + 1\n", first_line=3, last_line=4)
BIG = ContextItem(path="lib/big.py", text=LONG, last_line=60)
REQUESTS = (
    FimRequest(path="a.py", prefix="", suffix=""),
    FimRequest(path="a.py", prefix="import os\n\ndef f(pa", suffix="):\n    pass\n"),
    FimRequest(path="src/naïve.py", prefix="x = '\u00e9\U0001f600'\r\ny =", suffix="\r\n"),
    FimRequest(path="a.py", prefix="# <fim_middle><|endoftext|>\n", suffix="<|fim_middle|> <file_sep>"),
    FimRequest(path="a.py", prefix=LONG, suffix=LONG),
    FimRequest(path="a.py", prefix=LONG, suffix=LONG, context=(HELPER, HELPER)),
    FimRequest(path="a.py", prefix="helper(", suffix=")", context=(HELPER, BIG)),
    FimRequest(path="a.py", prefix="helper(", suffix=")", context=(BIG, HELPER)),
    FimRequest(path="deep/" * 60 + "a.py", prefix="x", suffix="y"),
)

with PROMPTS.open("w") as file:
    for name, fmt in FORMATS.items():
        for request in REQUESTS:
            for budget in (64, 256):
                ids = pack(fmt, ENCODER.encode, request, budget=budget).prompt.ids
                case = {"format": name, "budget": budget, "request": asdict(request), "ids": ids}
                file.write(json.dumps(case) + "\n")
