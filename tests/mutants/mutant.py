"""The lists of mutants: small deliberate bugs, each of which some test must find."""

from __future__ import annotations

import tomllib
from pathlib import Path

from attrs import frozen

ROOT = Path(__file__).parents[2]
LISTS = sorted((Path(__file__).parent / "lists").glob("*.toml"))

NOT_THE_MUTANT = 99
"""The exit code of a run that tested anything else than the copy."""


@frozen
class Mutant:
    """In `file` (below `src`), `old`, which stands there once, becomes `new`.

    `tests` (below `tests`) are all that is run; without them it is the tests of the core.
    """

    name: str
    bug: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...] = ()

    def apply(self, source: str) -> str:
        """The source with the bug in it. Raises `ValueError` unless `old` stands there once."""
        count = source.count(self.old)
        if count != 1:
            raise ValueError(f"{self.name}: the old text stands in {self.file} {count} times, not once")
        return source.replace(self.old, self.new)


def load(*lists: Path) -> list[Mutant]:
    """The mutants of these lists; of all in this folder when none is given."""
    return [
        Mutant(name, **{**fields, "tests": tuple(fields.get("tests", ()))})
        for path in lists or LISTS
        for name, fields in tomllib.loads(path.read_text("utf-8")).items()
    ]
