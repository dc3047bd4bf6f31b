"""The folder of HumanEval-Infilling, for the test that executes it. Other tests do not decontaminate against it."""

import os
from typing import Final

FOLDER: Final = os.environ.setdefault("TESTS_BENCH_DIR", os.environ.pop("INFILL_BENCH_DIR", ""))
"""Empty where there is none. pytest's worker processes inherit the second variable, when the first is gone."""
