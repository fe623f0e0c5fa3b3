"""The version of this package, as `pyproject.toml` has it, and the name that clients give themselves."""

import sys

VERSION = "0.1.0"

USER_AGENT = f"presence-proto/{VERSION} Python/{sys.version_info.major}.{sys.version_info.minor}"
"""The default `User-Agent`. Constant for an interpreter; configs and recordings carry it as a value."""
