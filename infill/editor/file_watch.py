"""Watch folders for an editor that does not report which files change."""

import logging
import threading
from pathlib import Path

from watchfiles import watch

from infill.context.files import VENDORED
from infill.editor.project import Indexer, Project

log = logging.getLogger("infill.lsp")


class Watcher:
    """A watcher of folders, with one thread for each; the threads end with the process."""

    def __init__(self, indexer: Indexer) -> None:
        self._indexer = indexer
        self._ends: dict[Project, threading.Event] = {}

    def add(self, project: Project) -> None:
        """Start watching a folder."""
        end = self._ends[project] = threading.Event()
        threading.Thread(target=self._watch, args=(project, end), name="watcher", daemon=True).start()

    def remove(self, project: Project) -> None:
        """Stop watching a folder."""
        if end := self._ends.pop(project, None):
            end.set()

    def _watch(self, project: Project, end: threading.Event) -> None:
        root = project.root
        try:
            for changes in watch(
                *(root,),
                watch_filter=lambda _, path: VENDORED.isdisjoint(Path(path).relative_to(root).parts),
                stop_event=end,
                raise_interrupt=False,
                ignore_permission_denied=True,
            ):
                self._indexer.look(project, {Path(path).relative_to(root).as_posix() for _, path in changes})
        except Exception as error:  # the library raises various errors, such as for a folder that is too large
            log.warning("cannot watch %s; only files saved in this editor are updated: %s", root, error)
