"""What a benchmark has found, before anybody has decided how to show it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

from attrs import Factory, asdict, define, fields_dict, frozen

from benchmarks.contest import Result


@frozen
class Row:
    """One contestant. `value`: the median, in the unit of its table; `fault`: why there is none.

    `spread`: half the distance between the quartiles, as a part of the median. `ours`: it is this project.
    `wrong`: it did its work wrong. `note`: what there is to say besides.
    """

    name: str
    value: float | None
    spread: float = 0.0
    fault: str | None = None
    ours: bool = False
    wrong: bool = False
    note: str = ""


@define
class Table:
    """`about`: what is measured. `bias`: what of the method favours whom. `higher`: higher is better.

    `compared`: the rows do the same, and ratios mean something.
    """

    name: str
    title: str
    about: str
    unit: str
    rows: list[Row] = Factory(list)
    bias: str = ""
    higher: bool = False
    compared: bool = True

    @property
    def reference(self) -> Row | None:
        """The row that all others are compared with: the first one of this project."""
        return next((row for row in self.rows if row.ours and row.value is not None), None)

    def ratio(self, row: Row) -> float | None:
        """How many times better the reference is than `row`: less time, or more in the same time."""
        reference = self.reference
        if not self.compared or reference is None or not row.value or not reference.value:
            return None
        return reference.value / row.value if self.higher else row.value / reference.value

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        rows = [asdict(row) | {"ratio": self.ratio(row)} for row in self.rows]
        return asdict(self, recurse=False) | {"rows": rows}

    @classmethod
    def from_dict(cls, table: dict[str, Any]) -> Self:
        """What `as_dict` gave."""
        rows = [Row(**{name: row[name] for name in fields_dict(Row)}) for row in table["rows"]]
        return cls(**table | {"rows": rows})


def rows_of(results: Iterable[Result]) -> list[Row]:
    """The results, in their order."""
    rows = []
    for result in results:
        value = result.median if result.rounds and result.fault is None else None
        spread = result.spread if value is not None else 0.0
        rows.append(Row(result.name, value, spread, result.fault, result.ours, result.wrong))
    return rows


def ranked(rows: Iterable[Row], *, higher: bool = False) -> list[Row]:
    """Ours first, then the best first, and at the end who has no value."""

    def rank(row: Row) -> tuple[bool, bool, float]:
        return not row.ours, row.value is None, (row.value or 0) * (-1 if higher else 1)

    return sorted(rows, key=rank)
