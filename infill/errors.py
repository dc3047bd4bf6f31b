"""The errors that a user can act on.

Each message states what is wrong, where, and what to do. The command line and the pipeline's steps print it without a
traceback and exit with the error's `exit_code`. `entry.explain` has the rules for other exceptions.
"""


class InfillError(Exception):
    """The base class of errors whose message is meant for the user."""

    exit_code: int = 2
    """Exit code of a process that ends with this error."""


class InputError(InfillError):
    """An unusable argument, file or input."""


class StorageError(InfillError):
    """A store that cannot be read or written: a full disk, missing permissions, an unreachable object store."""


class ServiceError(InfillError):
    """A server that is unreachable, too slow, or answers incorrectly."""


class TrainingError(InfillError):
    """A training run that cannot continue: it diverged, hung, or does not fit the machine."""


class StoppedError(TrainingError):
    """A training run that stopped on request, after it wrote a checkpoint."""

    exit_code = 128 + 15
    """That of a process that SIGTERM ended."""
