"""`python -m serving.child MODULE ARGUMENTS...`: run a module as a server that ends with the process that started it.

Standard input is a pipe from that process, which never writes to it; it closes when the process ends, however it ends.
"""

import os
import runpy
import signal
import sys
import threading


def _watch() -> None:
    os.read(sys.stdin.fileno(), 1)
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """Run the module that the first argument names, as `python -m` would."""
    threading.Thread(target=_watch, name="parent", daemon=True).start()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
