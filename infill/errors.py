"""The errors that a user can do something about.

Each message says what was wrong, where, and what to do. The command line prints it without a traceback and exits with
2; anything else that is raised is a defect of ours and keeps its traceback.
"""


class InfillError(Exception):
    """Base of all errors whose message is meant for the user."""


class InputError(InfillError):
    """Data, a file or an argument cannot be used as it is."""


class StorageError(InfillError):
    """The store cannot be read or written: a full disk, missing rights, an unreachable object store."""


class ServiceError(InfillError):
    """A server that we talk to is gone, slow, or answers nonsense."""


class TrainingError(InfillError):
    """A training run cannot go on: it diverged, hangs, or does not fit the machine."""
