"""What the server that `runs` forks processes from has loaded: that module, with PyTorch, and DeepSpeed."""

import tests.unit.train.runs  # noqa: F401 (for its imports)
from infill.train import zero

zero.load_deepspeed()
