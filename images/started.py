"""Print how Docker starts the only container of a Deployment on standard input, one argument to a line.

`images/started.py IMAGE`: command, arguments, plain variables and limit of memory are the chart's, the image is IMAGE.
"""

import sys
from typing import Any

import yaml


def arguments(container: dict[str, Any], image: str) -> list[str]:
    """Return the arguments of `docker run` after its own options."""
    variables = [f"--env={each['name']}={each['value']}" for each in container["env"] if "value" in each]
    memory = container["resources"]["limits"]["memory"].lower().removesuffix("i")
    return [*variables, f"--memory={memory}", image, *container["command"], *container["args"]]


if __name__ == "__main__":
    [deployment] = [each for each in yaml.safe_load_all(sys.stdin) if each and each["kind"] == "Deployment"]
    [pod] = deployment["spec"]["template"]["spec"]["containers"]
    sys.stdout.write("\n".join([*arguments(pod, sys.argv[1]), ""]))
