"""The name under which a server keeps a folder: the same at each start, and a secret of this user.

Where a server has no keys, whoever knows the name of a workspace can get completions from it. So the name is a digest
of the folder and of a random number, which is drawn once and kept in the user's state folder.
"""

import hashlib
import logging
import os
import secrets
from pathlib import Path
from typing import Final

log = logging.getLogger("infill.lsp")

NUMBER_BYTES: Final = 32
_spare: Final = secrets.token_bytes(NUMBER_BYTES)
"""The number of a process that cannot keep one."""


def workspace_name(root: Path) -> str:
    """Return the name of the workspace for a folder."""
    return hashlib.blake2b(os.fsencode(root.resolve()), key=_number(), digest_size=20).hexdigest()


def number_file() -> Path:
    """Return the file with the user's random number."""
    state = os.environ.get("XDG_STATE_HOME", "")
    return (Path(state) if os.path.isabs(state) else Path.home() / ".local/state") / "infill" / "workspaces.key"


def _number() -> bytes:
    """Return the user's random number, which is drawn at the first call."""
    try:
        file = number_file()
        if not file.exists():
            _draw(file)
        number = file.read_bytes()
    except (OSError, RuntimeError) as error:
        log.warning("cannot keep a number for the names of workspaces, so they are sent at each start: %s", error)
        return _spare
    if len(number) != NUMBER_BYTES:
        log.warning("%s is damaged, so the names of workspaces change at each start: delete it", file)
        return _spare
    return number


def _draw(file: Path) -> None:
    """Write a random number, unless another process does so first."""
    file.parent.mkdir(parents=True, exist_ok=True)
    own = file.with_name(f"{file.name}.{secrets.token_hex(8)}")
    descriptor = os.open(own, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "wb") as out:
            out.write(secrets.token_bytes(NUMBER_BYTES))
            out.flush()
            os.fsync(out.fileno())
        os.link(own, file)
    except FileExistsError:
        return
    finally:
        own.unlink(missing_ok=True)
