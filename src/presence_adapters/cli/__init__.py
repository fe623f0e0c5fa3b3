"""The `presence` command, which needs the extra `cli`: click, platformdirs, rich and textual."""

from __future__ import annotations

import sys

INTERRUPTED = 130
"""Exit status after Ctrl-C, equal to `Exit.INTERRUPTED`. Ctrl-C may arrive before `exits` is imported."""


def main() -> None:
    """Run the `presence` command."""
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
