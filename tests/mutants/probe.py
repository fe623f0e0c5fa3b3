"""The pytest plugin of a mutation run. It writes the tests that fail to the file `MUTANT_ANSWER`.

And it sees to it that the tests ran on the copy of the sources in `MUTANT_COPY`, `MUTANT_FILE` among them.
"""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

import pytest
from hypothesis import Phase, settings

from mutants.mutant import NOT_THE_MUTANT

MEMORY = 3 << 30
"""Bytes. A mutant may well go mad."""


@pytest.hookimpl(trylast=True)
def pytest_configure() -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    # That it fails is all there is to know: no time for making the example small.
    phases = (Phase.explicit, Phase.generate)
    settings.register_profile("mutants", settings.get_profile("thorough"), phases=phases)
    settings.load_profile("mutants")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.failed:
        _answer(report.nodeid)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.failed:
        _answer(f"{report.nodeid}, at its import")


def pytest_sessionfinish() -> None:
    files = {
        Path(file)
        for name, module in sys.modules.copy().items()
        if name.partition(".")[0] in ("presence_proto", "presence_adapters")
        and (file := getattr(module, "__file__", None)) is not None
    }
    copy, mutant = Path(os.environ["MUTANT_COPY"]), Path(os.environ["MUTANT_FILE"])
    others = [str(file) for file in files if not file.is_relative_to(copy)]
    if others or mutant not in files:
        pytest.exit(f"not the mutant was tested: {others or 'its file was not imported'}", NOT_THE_MUTANT)


def _answer(failed: str) -> None:
    with open(os.environ["MUTANT_ANSWER"], "a", encoding="utf-8") as answer:
        answer.write(f"{failed}\n")
