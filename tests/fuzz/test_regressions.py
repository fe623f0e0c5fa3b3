"""Every target takes its seeds, and what once was found."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuzz import targets
from fuzz.campaign import REGRESSIONS
from fuzz.seeds import MAX_SIZE

FOUND = sorted(path for path in REGRESSIONS.glob("*/*") if path.is_file())


@pytest.mark.long
@pytest.mark.parametrize("name", targets.NAMES)
def test_the_seeds_are_fine(name: str) -> None:
    check = targets.check(name)
    inputs = list(targets.load(name).inputs())
    assert len(set(inputs)) >= 20
    for data in inputs:
        assert len(data) <= MAX_SIZE
        check(data)


@pytest.mark.parametrize("path", FOUND, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_was_found_is_mended(path: Path) -> None:
    targets.check(path.parent.name)(path.read_bytes())
