"""How a training is run: in this process, or by Ray's workers (`workers`), each of which lives as `job.run` says.

Resume does not depend on either: workers look for the last whole checkpoint in the stage's output, whoever wrote it,
and however many they were.
"""

import torch

from infill import inference, machine
from infill.train import history, watch
from infill.train.engine import PlainEngine
from infill.train.job import Job, Place, run
from infill.train.progress import following


def fit(job: Job) -> dict[str, float]:
    """Train, or go on with it, until weights, tokenizer and configuration stand in `job.output`; return the metrics.

    Raises TrainingError when the workers fail more often than allowed, and what the loop raises.
    """
    with following(job.output, job.label):
        if job.train.launcher == "local":
            torch.set_num_threads(machine.cores())
            device = inference.choose_device()
            with watch.obedient():
                run(job, PlainEngine, device, Place())
        else:
            from infill.train import workers

            workers.fit(job)
    return history.metrics(job.output)
