"""Import Hypothesis. If Hypothesis is missing, the `ModuleNotFoundError` names the extra to install."""

from __future__ import annotations

try:
    import hypothesis as hypothesis  # re-exported
except ModuleNotFoundError as exc:
    missing = str(exc.name).partition(".")[0]
    raise ModuleNotFoundError(
        f"{missing} is missing. Install it: pip install 'presence-proto[testing]'", name=missing
    ) from None
