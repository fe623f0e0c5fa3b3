"""The command line, `presence`. It needs the extra `cli`: click, platformdirs, rich and textual."""

from __future__ import annotations

import sys

INTERRUPTED = 130
"""The exit status after Ctrl-C: `Exit.INTERRUPTED`, which is not imported yet when it is needed here."""


def main() -> None:
    """Run `presence`."""
    try:
        from presence_adapters.cli.app import app

        app(prog_name="presence")
    except ModuleNotFoundError as exc:
        package = str(exc.name).partition(".")[0]
        if package not in ("click", "platformdirs", "rich", "textual"):
            raise
        hint = "Install the command line: pip install 'presence-proto[cli]'"
        sys.exit(f"presence: {package} is missing. {hint}")
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
