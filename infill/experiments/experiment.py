"""An experiment: a question, the cells that are compared on the same holes, and what is measured at each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

HOLE: Final = "hole"
"""Column with the id of the hole."""
CELL: Final = "cell"
"""Column with the name of the cell, in the rows of all cells."""

Row = Mapping[str, Any]
"""The measurements at one hole: HOLE, and for each measure a number, or a list of numbers for a quantile."""


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A number that is measured at each hole, and compared between cells."""

    name: str
    """Its column; for a metric of completions, the metric's name."""
    label: str
    """Its name for people."""
    unit: str = ""
    higher_is_better: bool | None = True
    """None for a number that describes a cell and is neither good nor bad; it is not compared."""
    column: str = ""
    """Its column, if that is not its name."""
    quantile: float | None = None
    """The quantile that is a cell's figure; None for the mean. At a hole there may be several values, in a list."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """All that the shared frame needs to run an experiment and to report it."""

    name: str
    question: str
    factor: str
    """The difference between the cells: the heading of their column and the label of the axis."""
    cells: Sequence[str]
    """Names of the cells; the others are compared with the first."""
    baseline: str
    """The first cell in a sentence, after "compared with"."""
    second: str = ""
    """Another cell with which those after the first are compared, too."""
    measures: Sequence[Measure]
    holes: Sequence[str]
    """Ids of the holes, the same for every cell."""
    places: str = "holes"
    """A word for the holes, if they are something else."""
    measure: Callable[[str, int], Mapping[str, Any]]
    """Measures one cell at the hole with this number; returns a number for each measure, and what else is kept."""
    setting: Sequence[str] = ()
    """Sentences of the report on what was measured, where, and what the figures do not say."""

    @property
    def against_second(self) -> "Experiment":
        """The same without the first cell, where the others are compared with `second`."""
        others = [cell for cell in self.cells[1:] if cell != self.second]
        return replace(self, cells=[self.second, *others], baseline=self.second, second="")
