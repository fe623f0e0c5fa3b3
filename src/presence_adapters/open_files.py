"""How many files, and so connections, this process may have open."""

from __future__ import annotations

import sys
from contextlib import suppress

if sys.platform != "win32":
    import resource

    def open_files_limit() -> int | None:
        """The limit of now, `RLIMIT_NOFILE`; `None` when there is none."""
        return _known(resource.getrlimit(resource.RLIMIT_NOFILE)[0])

    def raise_open_files_limit(wanted: int) -> None:
        """Let this process open so many files, or as many as it may without more rights."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most, limit = _known(hard), _known(soft)
        enough = wanted if most is None else min(wanted, most)
        if limit is not None and limit < enough:
            with suppress(OSError, ValueError):  # macOS has a limit of its own below "unlimited"
                resource.setrlimit(resource.RLIMIT_NOFILE, (enough, hard))

    def _known(limit: int) -> int | None:
        return None if limit == resource.RLIM_INFINITY else limit

else:

    def open_files_limit() -> int | None:
        """The limit of now; `None` when there is none, or none that is known."""
        return None

    def raise_open_files_limit(wanted: int) -> None:
        """Let this process open so many files. Nothing is to be done here."""
