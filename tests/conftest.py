"""Hypothesis profiles.

`thorough`, the default: the same examples on every run, so that a red test is red for everybody.
`brief`: fewer of them, for `make test` and for runs on other Pythons. `make test-all` takes `thorough`.
`explore`: many new ones. Choose one with `pytest --hypothesis-profile=explore`.

A test that needs more or fewer examples than others asks for a multiple of the profile's number
(`examples.times`).
"""

from __future__ import annotations

import gc
import signal

from hypothesis import HealthCheck, settings

THOROUGH = settings(derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("thorough", THOROUGH)
settings.register_profile("brief", THOROUGH, max_examples=20)
settings.register_profile("explore", THOROUGH, derandomize=False, max_examples=5000)
settings.load_profile("thorough")

# A shell that starts us in the background has us ignore Ctrl-C, which some tests are about.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = ["pytester"]  # for the tests of our own plugin


def pytest_collection_finish() -> None:
    """Keep the collected tests out of every later `gc.collect()`: thousands of items took 9 of 10 seconds."""
    gc.collect()
    gc.freeze()
