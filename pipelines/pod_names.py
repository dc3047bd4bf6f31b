"""Names of the pods of a run's steps, which KFP's API does not report.

KFP's tasks are the nodes of an Argo workflow. For each the API gives the last part of the node's path and the ids of
the nodes that follow, but neither its own id nor its pod. Argo makes an id of the path, such as
`infill-x7k2p(0).root(0).corpus(0).executor(0)`, and KFP a pod's name of id and template, so both can be computed.
"""

import re
from collections.abc import Iterable, Mapping, Set
from typing import Any, Final

ATTEMPT: Final = re.compile(r"(.+?)(?:\(\d+\))?\.executor(?:\(\d+\))?")
"""The path of a step's container, after the step's own. A node that may be retried has a child for each attempt, whose
path ends with its number: KFP's own installation lets Argo retry every node (`templateDefaults`)."""
TEMPLATES: Final = ("system-container-impl", "retry-system-container-impl")
"""KFP's templates of steps' containers: for a step without retries of its own, and for one with them."""


def pods(details: Iterable[Mapping[str, Any]], keys: Set[str]) -> list[str]:
    """Return the pods of the tasks named `keys`, among all `details` of a run, in the order of their attempts.

    KFP does not tell which template a step has, so each attempt has two names, of which one does not exist.
    """
    attempts = {path: match[1] for path in _paths(list(details)) if (match := ATTEMPT.fullmatch(path))}
    chosen = [path for path, step in attempts.items() if step.rpartition(".")[2] in keys]
    # A node with attempts has no pod of its own.
    first = {path for path in chosen if not any(each.startswith(f"{path}(") for each in chosen)}
    return [
        f"{path.partition('.')[0].partition('(')[0]}-{template}-{fnv(path)}"
        for path in sorted(first, key=_in_order)
        for template in TEMPLATES
    ]


def _in_order(path: str) -> list[tuple[str, int]]:
    return [(text, int(number or 0)) for text, number in re.findall(r"([^(]+)(?:\((\d+)\))?", path)]


def fnv(text: str) -> int:
    """Return the 32-bit FNV-1a hash of a text."""
    value = 0x811C9DC5
    for byte in text.encode():
        value = (value ^ byte) * 0x01000193 & 0xFFFFFFFF
    return value


def _paths(details: list[Mapping[str, Any]]) -> list[str]:
    """Return the paths of a workflow's nodes: those of the tasks' names whose ids are children of tasks."""
    ids = {str(child.get("pod_name")) for task in details for child in task.get("child_tasks") or ()}
    names = sorted({str(task.get("display_name")) for task in details})
    workflows = sorted({each.rpartition("-")[0] for each in ids})[:1]
    paths = [*workflows, *(each for each in names if workflows and each.startswith(f"{workflows[0]}("))]
    for path in paths:
        paths += [f"{path}.{name}" for name in names if f"{workflows[0]}-{fnv(f'{path}.{name}')}" in ids]
    return paths
