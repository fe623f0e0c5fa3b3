"""Hypothesis profiles.

`ci`, the default: the same examples on every run, so that a red test is red for everybody. `explore`: many
new ones; `pytest --hypothesis-profile=explore`.
"""

from __future__ import annotations

import signal

from hypothesis import HealthCheck, settings

settings.register_profile("ci", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("explore", settings.get_profile("ci"), derandomize=False, max_examples=5000)
settings.load_profile("ci")

# A shell that starts us in the background has us ignore Ctrl-C, which some tests are about.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = ["pytester"]  # for the tests of our own plugin
