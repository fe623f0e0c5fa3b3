"""Every target takes its seeds, and what once was found."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuzz import targets
from fuzz.campaign import REGRESSIONS
from fuzz.seeds import MAX_SIZE

FOUND = sorted(path for path in REGRESSIONS.glob("*/*") if path.is_file())


@pytest.mark.parametrize("name", targets.NAMES)
def test_the_seeds_are_fine(name: str) -> None:
    target = targets.load(name)
    inputs = list(target.inputs())
    assert len(set(inputs)) >= 20
    for data in inputs:
        assert len(data) <= MAX_SIZE
        target.check(data)


@pytest.mark.parametrize("path", FOUND, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_was_found_is_mended(path: Path) -> None:
    targets.load(path.parent.name).check(path.read_bytes())
