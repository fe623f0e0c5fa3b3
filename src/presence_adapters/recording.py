"""The `record` option of every adapter, and the wire log: makes the core, plain or recorded, and keeps the
file of a recording.

See `presence_proto.recording.Recorder` for what is in it, and `presence replay` for what it is good for.
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
from presence_adapters.connecting import os_error_words
from presence_adapters.wall_clock import utc_now
from presence_adapters.wire_log import wire_log

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)


class TextFile(Protocol):
    """What a recording can be written to."""

    def write(self, text: str, /) -> object: ...
    def flush(self) -> object: ...


Record: TypeAlias = str | os.PathLike[str] | TextFile
"""A path, or a text file that is open for writing and stays open."""


class Recording:
    """Makes the core of one client or hub. With a `target` it is recorded to that, line by line; for a wire
    log it is recorded, too.

    A path is opened by `open`, and closed when the driver has ended; a file there before is overwritten.
    When writing fails later, that is logged, and nothing more is recorded.
    """

    def __init__(self, target: Record | None) -> None:
        self._target = target
        self._file: TextFile | None = None
        self._was_opened = False
        self._wire_log = wire_log()
        is_wanted = target is not None or self._wire_log is not None
        self._recorder: Recorder | None = None
        if is_wanted:
            from presence_proto.recording import Recorder  # here, since few clients are recorded

            self._recorder = Recorder(self._write)

    # ---------------------------------------------------------------- cores

    def presence_client(
        self,
        identity: core.Identity,
        config: core.PresenceConfig,
        rng: random.Random | None,
        online_at: str | None,
    ) -> core.PresenceClient:
        """With an `rng` of its own, and online since now, if neither is given."""
        make = core.PresenceClient if self._recorder is None else self._recorder.presence_client
        return make(identity, config, rng=rng or random.Random(), online_at=online_at or utc_now())

    def realtime_client(self, config: core.RealtimeConfig, rng: random.Random | None) -> core.RealtimeClient:
        """With an `rng` of its own, if none is given."""
        make = core.RealtimeClient if self._recorder is None else self._recorder.realtime_client
        return make(config, rng=rng or random.Random())

    def hub(
        self, config: core.HubConfig, rng: random.Random | None, hub_type: type[core.Hub] | None = None
    ) -> core.Hub:
        """With an `rng` of its own, if none is given. Of subclasses no recording can be made."""
        hub_type = hub_type or core.Hub
        rng = rng or random.Random()
        if self._recorder is None or (hub_type is not core.Hub and self._target is None):
            return hub_type(config, rng=rng)
        if hub_type is not core.Hub:
            raise core.ConfigError(f"record: a {hub_type.__name__} cannot be recorded, only a Hub can")
        return self._recorder.hub(config, rng=rng)

    # ---------------------------------------------------------------- the file

    def open(self) -> None:
        """Before anything is recorded. Raises `ConfigError` when the target cannot be written to."""
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
        """`on_end` of a driver, after which nothing more is recorded."""
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
            self._file.flush()  # so that it survives a crash
        except (OSError, ValueError) as exc:
            logger.error("the recording ends here, it cannot be written: %s", exc)
            self._close()

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None and file is not self._target:
            with suppress(OSError):  # the disk is full, as `_write` has said
                file.close()  # type: ignore[attr-defined]  # it is one that we have opened


def _for_us_alone(path: str, flags: int) -> int:
    """Open the file for writing, new or old: it is ours to read alone, and nobody's link leads elsewhere."""
    # Not at once truncated: a file that cannot be made private stays as it is.
    flags &= ~os.O_TRUNC
    handle = os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0), 0o600)
    try:
        if os.name == "posix" and stat.S_ISREG(os.fstat(handle).st_mode):
            os.fchmod(handle, 0o600)
            os.ftruncate(handle, 0)
        elif os.name == "posix":
            os.set_blocking(handle, True)  # a FIFO, which somebody reads
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
        return "it is a symbolic link, and what it leads to would be overwritten: name the file itself"
    if exc.errno == errno.ENXIO:
        return "it is a FIFO that nobody reads"
    return os_error_words(exc)
