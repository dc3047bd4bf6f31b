"""Print how Docker starts the only container of a Deployment on standard input, one argument to a line.

Command, arguments, plain variables and limit of memory are the Deployment's, the image is another one.
"""

import argparse
import sys
from typing import Any

import yaml

from infill import entry


def arguments(container: dict[str, Any], image: str) -> list[str]:
    """Return the arguments of `docker run` after its own options."""
    variables = [f"--env={each['name']}={each['value']}" for each in container["env"] if "value" in each]
    memory = container["resources"]["limits"]["memory"].lower().removesuffix("i")
    return [*variables, f"--memory={memory}", image, *container["command"], *container["args"]]


def main() -> None:
    """Print the arguments."""
    parser = entry.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", metavar="IMAGE", help="the image to start")
    image = parser.parse_args().image
    [deployment] = [each for each in yaml.safe_load_all(sys.stdin) if each and each["kind"] == "Deployment"]
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    sys.stdout.write("\n".join([*arguments(container, image), ""]))


if __name__ == "__main__":
    sys.exit(entry.run("images/started.py", main))
