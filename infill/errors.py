"""The errors that a user can do something about.

Each message says what was wrong, where, and what to do. The command line and the pipeline's steps print it without a
traceback and exit with the error's `exit_code`; anything else that is raised is a defect of ours and keeps its
traceback.
"""


class InfillError(Exception):
    """Base of all errors whose message is meant for the user."""

    exit_code: int = 2
    """Of the process that ends for this error."""


class InputError(InfillError):
    """Data, a file or an argument cannot be used as it is."""


class StorageError(InfillError):
    """The store cannot be read or written: a full disk, missing rights, an unreachable object store."""


class ServiceError(InfillError):
    """A server that we talk to is gone, slow, or answers nonsense."""


class TrainingError(InfillError):
    """A training run cannot go on: it diverged, hangs, or does not fit the machine."""


class StoppedError(TrainingError):
    """A training that was asked to stop has done so, with a checkpoint."""

    exit_code = 128 + 15
    """As of a process that SIGTERM has ended."""
