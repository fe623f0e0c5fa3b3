"""The version of this package, the same as in `pyproject.toml`, and the default `User-Agent`."""

import sys

VERSION = "0.1.0"

USER_AGENT = f"presence-proto/{VERSION} Python/{sys.version_info.major}.{sys.version_info.minor}"
"""The default `User-Agent`. Configs and recordings store the value, which is constant for an interpreter."""
