"""What this machine has and does: cores for a model's threads, and its load, sampled for the tracker."""

import contextlib
import os
import shutil
import subprocess
from typing import Final

from infill.text import split_lines

SMALL_PARAMETERS: Final = 20_000_000
MAX_THREADS: Final = 8


def cores() -> int:
    """Return the cores that this process is bound to.

    OMP_NUM_THREADS is not asked: Ray sets it to 1 for its workers.
    """
    return len(os.sched_getaffinity(0))


def useful_threads(parameters: int) -> int:
    """Return the threads on which a model with so many weights runs best.

    It is one for a small model, whose products are too small to share: on two busy cores two threads took 95 to 180 s
    for what one did in 15 (1.6M parameters), waiting for each other.
    """
    return 1 if parameters < SMALL_PARAMETERS else min(cores(), MAX_THREADS)


def system_metrics() -> dict[str, float]:
    """Load by the names of MLflow's own system metrics: percent, and megabytes of 10^6 bytes.

    `process_memory_megabytes` is the resident memory of this process and all below it. Where `nvidia-smi` is at hand
    there are also utilisation (%), memory (MB) and power (W) of each GPU.
    """
    import psutil

    memory = psutil.virtual_memory()
    resident = 0
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        with contextlib.suppress(psutil.Error):  # it has just ended
            resident += process.memory_info().rss
    values = {
        "cpu_utilization_percentage": psutil.cpu_percent(),
        "system_memory_usage_megabytes": memory.used / 1e6,
        "system_memory_usage_percentage": memory.percent,
        "process_memory_megabytes": resident / 1e6,
        "disk_usage_percentage": psutil.disk_usage(".").percent,
    }
    return values | _gpu_metrics()


def _gpu_metrics() -> dict[str, float]:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return {}
    query = [tool, "--query-gpu=index,utilization.gpu,memory.used,power.draw", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=5, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    return parse_gpus(answer)


def parse_gpus(table: str) -> dict[str, float]:
    """The figures in `nvidia-smi`'s table (index, %, MiB, W) without those that the driver does not know ("[N/A]")."""
    values: dict[str, float] = {}
    names = ("utilization_percentage", "memory_usage_megabytes", "power_usage_watts")
    for line in split_lines(table):
        index, *figures = [part.strip() for part in line.split(",")]
        for name, figure in zip(names, figures, strict=False):
            with contextlib.suppress(ValueError):
                values[f"gpu_{index}_{name}"] = float(figure)
    return values
