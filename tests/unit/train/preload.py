"""What the server that `runs` forks processes from has loaded."""

from tests.unit.train import runs

runs.launch.load_deepspeed()
