"""What to say when a package of an extra is not installed."""

from __future__ import annotations


def missing(error: ModuleNotFoundError, extra: str) -> ModuleNotFoundError:
    """The exception to raise in place of `error`: it names the extra to install."""
    package = str(error.name).partition(".")[0]
    return ModuleNotFoundError(
        f"{package} is missing. Install it: pip install 'presence-proto[{extra}]'", name=package
    )
