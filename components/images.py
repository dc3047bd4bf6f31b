"""The images that components run in, and the one place where their names stand.

`INFILL_IMAGES` may point to a JSON file {"train": "registry/infill-train@sha256:...", ...}, as `make images` writes it;
it is read when the pipeline is compiled.
"""

import json
import os
from pathlib import Path

from infill import __version__

NAMES = ("pipeline", "train", "transformer", "predictor")


def image(name: str) -> str:
    """The image of that name: by digest where `make images` has run, else by this release's tag."""
    if name not in NAMES:
        raise ValueError(f"there is no image {name!r}; there are {', '.join(NAMES)}")
    if file := os.environ.get("INFILL_IMAGES"):
        return str(json.loads(Path(file).read_text())[name])
    return f"infill-{name}:{__version__}"
