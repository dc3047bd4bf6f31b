"""Relocation of an MLflow database that was moved or copied with its run: its absolute paths are updated.

MLflow keeps absolute paths in its tables (where a run's files are, what a model version points to), and reads them
itself. So each experiment that Infill makes in a sqlite file is tagged with the folder of that file. Where the tag
names another folder than the one that the file is in, all paths below the old run's folder are rewritten, in one
transaction, before MLflow opens the file (docs/adr/0009).
"""

import contextlib
import sqlite3
from pathlib import Path
from typing import Final

from infill.errors import ServiceError

HOME_TAG: Final = "infill.database_folder"
FOLDER: Final = "mlflow"
"""Name of the folder, below a run's own, that holds the database."""
PATHS: Final = (
    ("experiments", "artifact_location"),
    ("experiment_tags", "value"),
    ("runs", "artifact_uri"),
    ("tags", "value"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("model_version_tags", "value"),
    ("registered_model_tags", "value"),
    ("logged_models", "artifact_location"),
)
"""Tables and columns of MLflow that contain paths, plain or as `file://` URIs."""


def relocate(database: Path) -> None:
    """Rewrite the paths in MLflow's sqlite file `database` if it was moved. Raises ServiceError if it cannot."""
    if not database.is_file() or not database.stat().st_size:
        return
    try:
        with contextlib.closing(sqlite3.connect(database, timeout=30, isolation_level=None)) as connection:
            if _old_homes(connection, database.parent):
                connection.execute("BEGIN IMMEDIATE")
                for home in _old_homes(connection, database.parent):  # again: another process may have been faster
                    _rewrite(connection, *_moved(home, database.parent))
                connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise ServiceError(
            f"cannot read or update MLflow's database {database} ({error}); check that it is whole and writable"
        ) from error


def _tables(connection: sqlite3.Connection) -> set[str]:
    return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def _old_homes(connection: sqlite3.Connection, home: Path) -> list[Path]:
    """Return the folders recorded as the database's own, without its current one."""
    if "experiment_tags" not in _tables(connection):
        return []
    rows = connection.execute("SELECT DISTINCT value FROM experiment_tags WHERE key = ?", (HOME_TAG,))
    return [Path(value) for (value,) in rows if Path(value) != home]


def _moved(old: Path, new: Path) -> tuple[Path, Path]:
    """Return the run's folder before and after the move of its database from the folder `old` to `new`."""
    return (old.parent, new.parent) if old.name == new.name == FOLDER else (old, new)


def _rewrite(connection: sqlite3.Connection, old: Path, new: Path) -> None:
    tables = _tables(connection)
    for table, column in PATHS:
        if table not in tables:
            continue
        for before, after in ((str(old), str(new)), (old.as_uri(), new.as_uri())):
            connection.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                (after, len(before) + 1, before, len(before) + 1, f"{before}/"),
            )
