"""Write the golden holes again."""

import json

from tests.golden.splits import HOLES, drawn, samples

with HOLES.open("w") as file:
    for name, language, text in samples():
        file.write(json.dumps({"file": name, "holes": drawn(name, language, text)}) + "\n")
