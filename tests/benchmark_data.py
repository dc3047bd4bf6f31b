"""The folder of HumanEval-Infilling, for the test that executes it. Other tests do not decontaminate against it."""

import os
from typing import Final

FOLDER: Final = os.environ.pop("INFILL_BENCH_DIR", "")
