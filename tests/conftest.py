"""Hypothesis profiles.

`ci`, the default: the same examples on every run, so that a red test is red for everybody. `explore`: many
new ones; `pytest --hypothesis-profile=explore`.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("ci", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("explore", settings.get_profile("ci"), derandomize=False, max_examples=5000)
settings.load_profile("ci")

pytest_plugins = ["pytester"]  # for the tests of our own plugin
