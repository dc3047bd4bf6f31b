"""The contract of a stage: its row in the table, the functions of its module, and what these are called with."""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from types import ModuleType
from typing import Any, Final, Generic, TypeVar

from infill import manifest, storage

RUN: Final = "INFILL_RUN"
"""Environment variable with the identifier of a pipeline run on a cluster, the same for all steps and retries."""

S = TypeVar("S")


class Where(Enum):
    """The place of a stage on a cluster; on one machine, every stage runs in the pipeline's step."""

    STEP = "in the pipeline's step"
    CPUS = "a RayJob on CPUs"
    GPU = "a RayJob whose driver has a GPU"
    WORKERS = "a RayJob with workers on GPUs"


@dataclass(frozen=True, kw_only=True)
class Call(Generic[S]):
    """The argument of the functions of a stage's module."""

    stage: str
    settings: S
    inputs: Mapping[str, str]
    """The folder of each input artifact, by the input's name."""
    digests: Mapping[str, str]
    """The digests of the inputs and of the outside state that the stage reads, by name."""
    key: str
    """Hash of stage, version, settings and digests: the name of the result's folder in the store."""
    output: str
    """The folder for the result."""

    @property
    def scratch(self) -> str:
        """The folder for files that only a resumed run needs; it is removed at the end."""
        return storage.join(self.output, manifest.SCRATCH, self.key)


Body = Callable[[Call[Any]], Mapping[str, float]]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stage: its row in the table, and what its module adds.

    The row names the module instead of its functions, because the table is read where the module cannot be imported:
    the command line and a pipeline's step have neither torch nor Ray. The module has

    - `VERSION`: an integer, raised when the stage writes something else for the same settings and inputs;
    - `body(call)`: writes the files of the artifact into `call.output` and returns its metrics. What is in
      `call.scratch` is still there when a killed stage is run again;
    - `outside(settings, digests)`, if the stage reads more than its inputs: returns digests, by name, of that outside
      state. `digests` are those of the inputs;
    - `apply(call)`, if the stage changes something outside the store: makes the outside match the finished artifact,
      each time the stage runs, and returns figures about it.
    """

    name: str
    """The stage's name, which is also the name of its settings in a `Preset`."""
    module: str
    inputs: tuple[str, ...] = ()
    """Names of the artifacts that the stage reads."""
    where: Where = Where.STEP
    command: tuple[str, ...] = ()
    """Words of the command that runs the stage; empty if the command line has one of another form."""
    about: str
    """Description of the stage for --help."""

    def settings(self, preset: Any) -> Any:
        """Return the stage's settings in `preset`."""
        return getattr(preset, self.name)

    @property
    def version(self) -> int:
        """The version of what the stage writes."""
        return int(self._module.VERSION)

    @property
    def body(self) -> Body:
        """The function that writes the artifact."""
        body: Body = self._module.body
        return body

    @property
    def reads_outside(self) -> bool:
        """Whether the stage reads more than its inputs."""
        return hasattr(self._module, "outside")

    def outside(self, settings: Any, digests: Mapping[str, str]) -> Mapping[str, str]:
        """Return the digests of the outside state that the stage reads; empty if it reads only its inputs."""
        return dict(self._module.outside(settings, digests)) if self.reads_outside else {}

    def apply(self, call: Call[Any]) -> Mapping[str, float]:
        """Make the outside match the finished artifact; return figures about it."""
        return dict(self._module.apply(call)) if hasattr(self._module, "apply") else {}

    @property
    def _module(self) -> ModuleType:
        return importlib.import_module(self.module)
