"""`Recording`: creates a core, with or without a recording, and owns the file of the recording.

The class implements the `record` option of all adapters, and feeds the wire log. The content of a recording
is defined by `presence_proto.recording.Recorder`. The command `presence replay` reads recordings.
"""

from __future__ import annotations

import errno
import logging
import os
import random
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol, TypeAlias

import presence_proto as core
from presence_adapters.tls_and_proxies import os_error_words
from presence_adapters.wall_clock import utc_now
from presence_adapters.wire_log import wire_log

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)


class TextFile(Protocol):
    """Interface of a text file to which a recording is written."""

    def write(self, text: str, /) -> object: ...
    def flush(self) -> object: ...


Record: TypeAlias = str | os.PathLike[str] | TextFile
"""Target of a recording: a path, or a text file open for writing. The recording does not close this file."""


class Recording:
    """Factory for the core of one client or hub. The core can be recorded.

    The core is recorded line by line if there is a `target`, or if the wire log is enabled. If the target is
    a path, `open` opens the file and overwrites an existing file. The file is closed when the driver has
    ended. When a write fails, the error is logged and the recording ends.
    """

    def __init__(self, target: Record | None) -> None:
        self._target = target
        self._file: TextFile | None = None
        self._was_opened = False
        self._wire_log = wire_log()
        is_wanted = target is not None or self._wire_log is not None
        self._recorder: Recorder | None = None
        if is_wanted:
            from presence_proto.recording import Recorder  # imported late, because few clients are recorded

            self._recorder = Recorder(self._write)

    # ---------------------------------------------------------------- cores

    def presence_client(
        self,
        identity: core.Identity,
        config: core.PresenceConfig,
        rng: random.Random | None,
        online_at: str | None,
    ) -> core.PresenceClient:
        """Create a presence client. Defaults: a new `rng`, and the current time as `online_at`."""
        make = core.PresenceClient if self._recorder is None else self._recorder.presence_client
        return make(identity, config, rng=rng or random.Random(), online_at=online_at or utc_now())

    def realtime_client(self, config: core.RealtimeConfig, rng: random.Random | None) -> core.RealtimeClient:
        """Create a realtime client. Default: a new `rng`."""
        make = core.RealtimeClient if self._recorder is None else self._recorder.realtime_client
        return make(config, rng=rng or random.Random())

    def hub(
        self, config: core.HubConfig, rng: random.Random | None, hub_type: type[core.Hub] | None = None
    ) -> core.Hub:
        """Create a hub. Default: a new `rng`. Raises `ConfigError` for a recording of a `Hub` subclass."""
        hub_type = hub_type or core.Hub
        rng = rng or random.Random()
        if self._recorder is None or (hub_type is not core.Hub and self._target is None):
            return hub_type(config, rng=rng)
        if hub_type is not core.Hub:
            raise core.ConfigError(f"record: cannot record a {hub_type.__name__}, only Hub itself")
        return self._recorder.hub(config, rng=rng)

    # ---------------------------------------------------------------- the file

    def open(self) -> None:
        """Open the target before the core is used. Raises `ConfigError` if the target is not writable."""
        target = self._target
        if target is None or self._was_opened:
            return
        try:
            if isinstance(target, (str, os.PathLike)):
                self._file = open(  # noqa: SIM115  # see _close
                    target, "w", encoding="ascii", newline="\n", opener=_for_us_alone
                )
            else:
                target.write("")
                self._file = target
        except (OSError, ValueError, TypeError, AttributeError) as exc:
            where = os.fspath(target) if isinstance(target, os.PathLike) else target
            raise core.ConfigError(f"record: cannot write to {where!r}: {_why_not(exc)}") from None
        self._was_opened = True

    def until(self, on_end: Callable[[Exception | None], None]) -> Callable[[Exception | None], None]:
        """Wrap the `on_end` callback of a driver so that the recording ends after the callback."""
        recorder = self._recorder
        if recorder is None:
            return on_end

        def end(error: Exception | None) -> None:
            on_end(error)
            recorder.close()
            self._close()

        return end

    def _write(self, line: str) -> None:
        if self._wire_log is not None:
            self._wire_log(line)
        if self._file is None:
            return
        try:
            self._file.write(line)
            self._file.flush()  # the line must survive a crash of the process
        except (OSError, ValueError) as exc:
            logger.error("the recording stops here, because it cannot be written: %s", exc)
            self._close()

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None and file is not self._target:
            with suppress(OSError):  # the disk may be full; `_write` has logged the error
                file.close()  # type: ignore[attr-defined]  # `open` returned it, so it has `close`


def _for_us_alone(path: str, flags: int) -> int:
    """Open a file for writing that only the file's owner can read. Do not follow symbolic links."""
    # Not O_TRUNC: a file that cannot be made private must keep its content.
    flags &= ~os.O_TRUNC
    handle = os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0), 0o600)
    try:
        if os.name == "posix" and stat.S_ISREG(os.fstat(handle).st_mode):
            os.fchmod(handle, 0o600)
            os.ftruncate(handle, 0)
        elif os.name == "posix":
            os.set_blocking(handle, True)  # a FIFO: O_NONBLOCK has made sure that a reader exists
        else:
            os.ftruncate(handle, 0)
    except BaseException:
        os.close(handle)
        raise
    return handle


def _why_not(exc: Exception) -> str:
    if not isinstance(exc, OSError):
        return "it is not a file or a path"
    if exc.errno == errno.ELOOP:
        return "it is a symbolic link, and its target would be overwritten: give the path of the target"
    if exc.errno == errno.ENXIO:
        return "it is a FIFO without a reader"
    return os_error_words(exc)
