"""The check of drivers finds what is wrong with one, and names it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from adapters.broken_drivers import (
    BROKEN,
    LEAKED,
    ClosesBeforeItWrites,
    DoesNotDrain,
    GivesNoReason,
    HasAClockOfItsOwn,
    SaysOpenedTwice,
    SmallDriver,
    SwallowsBugs,
    WritesAndWaits,
)
from presence_adapters.testing import DutyError, check_driver, driver_check, driver_lab

if TYPE_CHECKING:
    from collections.abc import Iterator

FOUND_SOON = (
    ClosesBeforeItWrites,
    DoesNotDrain,
    GivesNoReason,
    HasAClockOfItsOwn,
    SaysOpenedTwice,
    SwallowsBugs,
    WritesAndWaits,
)
"""Drivers that are found out within two seconds. The last one runs into a timeout."""


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whoever does not do what it should in 3 s will never do it."""
    for module in (driver_check, driver_lab):
        monkeypatch.setattr(module, "PATIENCE", 1.0)
        monkeypatch.setattr(module, "PROMPT", 1.5)
    for method in (driver_lab.DriverLab.run, driver_lab.DriverRun.finish, driver_lab.DriverRun.join):
        monkeypatch.setitem(method.__kwdefaults__, "within", 3.0)
    yield
    for link in LEAKED:
        link.sock.close()
    LEAKED.clear()


@pytest.mark.long
def test_a_small_driver_does_all_of_its_duties() -> None:
    check_driver(SmallDriver)


@pytest.mark.parametrize(
    "driver", [pytest.param(one, marks=[] if one in FOUND_SOON else [pytest.mark.long]) for one in BROKEN]
)
@pytest.mark.usefixtures("impatient")
def test_a_broken_driver_is_found_out(driver: type[SmallDriver]) -> None:
    with pytest.raises(DutyError) as caught:
        check_driver(driver, duties=[BROKEN[driver]])
    assert caught.value.duties == [BROKEN[driver]]
