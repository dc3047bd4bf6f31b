"""The resources of this machine: cores and threads for a model, and load metrics for the tracker."""

import contextlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from infill.text import read_text, split_lines

SMALL_PARAMETERS: Final = 20_000_000
MAX_THREADS: Final = 8
CPU_INFO: Final = Path("/proc/cpuinfo")


def cores() -> int:
    """Return the number of cores that this process may use.

    OMP_NUM_THREADS has no influence: Ray sets it to 1 for its workers.
    """
    return len(os.sched_getaffinity(0))


def cpu_info(name: str) -> str:
    """Return what Linux says of the processor under `name`, such as "vendor_id"; "" if it says nothing."""
    lines = split_lines(read_text(CPU_INFO, "replace")) if CPU_INFO.exists() else []
    facts = (line.partition(":") for line in lines)
    return next((value.strip() for each, _, value in facts if each.strip() == name), "")


def useful_threads(parameters: int) -> int:
    """Return the number of threads on which a model with `parameters` weights runs fastest.

    A small model, whose products are too small to share, gets one: on two busy cores, two threads that waited for each
    other took 95 to 180 s for work that one thread did in 15 s (1.6M parameters).
    """
    return 1 if parameters < SMALL_PARAMETERS else min(cores(), MAX_THREADS)


def has_gpu() -> bool:
    """Return whether NVIDIA's driver is installed, without importing torch."""
    return shutil.which("nvidia-smi") is not None


def system_metrics() -> dict[str, float]:
    """Return the machine's load under the names of MLflow's system metrics: percent, and megabytes of 10^6 bytes.

    `process_memory_megabytes` is the resident memory of this process and its descendants. If `nvidia-smi` is installed,
    the metrics include utilisation (%), memory (MiB) and power (W) of each GPU.
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
    """Return the figures in `nvidia-smi`'s table (index, %, MiB, W), without those that are not available ("[N/A]")."""
    values: dict[str, float] = {}
    names = ("utilization_percentage", "memory_usage_megabytes", "power_usage_watts")
    for line in split_lines(table):
        index, *figures = [part.strip() for part in line.split(",")]
        for name, figure in zip(names, figures, strict=False):
            with contextlib.suppress(ValueError):
                values[f"gpu_{index}_{name}"] = float(figure)
    return values
