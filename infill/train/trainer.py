"""The start of a training: in this process, or in Ray's workers (`workers`); each worker runs `training_job.run`.

Resuming works across both: workers continue from the last complete checkpoint in the stage's output, whatever kind and
number of workers wrote it.
"""

import torch

from infill import inference, machine
from infill.train import history, watchdog
from infill.train.engine import PlainEngine
from infill.train.progress import following
from infill.train.training_job import TrainingJob, WorkerPlace, run


def fit(job: TrainingJob) -> dict[str, float]:
    """Train, or continue training, until the model folder `job.output` is complete; return the metrics.

    Raises TrainingError when the workers fail more often than allowed, and the errors of `loop.train`.
    """
    with following(job.output, job.label):
        if job.train.launcher == "local":
            torch.set_num_threads(machine.cores())
            device = inference.choose_device()
            with watchdog.obedient():
                run(job, PlainEngine, device, WorkerPlace())
        else:
            from infill.train import workers

            workers.fit(job)
    return history.metrics(job.output)
