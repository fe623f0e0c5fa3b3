"""Implementation of `presence replay`."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import click

from presence_adapters.tls_and_proxies import os_error_words
from presence_proto.recording import RecordingError, replay, show_recording

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from presence_proto.recording import Difference

CONTEXT = 8  # maximum number of recorded lines that are printed before a difference
WIDTH = 160  # characters; longer context lines are cut


class BadRecording(click.ClickException):
    """Error: the file cannot be read or is not a valid recording. The exit status is 2."""

    exit_code = 2


def replay_file(path: str, *, show: bool) -> bool:
    """Replay the recording at `path` (`-` is stdin). Return whether the output is the recorded output.

    With `show`, print a readable form of the recording instead, and return `True`. Raises `BadRecording`.
    """
    try:
        with click.open_file(path, encoding="utf-8", errors="replace") as file:
            if show:
                for words in show_recording(file):
                    click.echo(words)
                return True
            return _replay(file)
    except BrokenPipeError:
        raise  # stdout, not the recording, is closed; click handles this error
    except OSError as exc:
        raise BadRecording(f"cannot read {path}: {os_error_words(exc)}") from None
    except RecordingError as exc:
        raise BadRecording(f"{path}, {exc}") from None


def _replay(lines: Iterable[str]) -> bool:
    latest: deque[tuple[int, str]] = deque(maxlen=CONTEXT + 2)  # the replay may have read one line ahead

    def passing() -> Iterator[str]:
        for numbered in enumerate(lines, 1):
            latest.append(numbered)
            yield numbered[1]

    result = replay(passing())
    if result.difference is not None:
        _tell(result.difference, latest)
    did = (
        f"{result.facts} facts, {result.commands} commands, {result.outputs} outputs in {result.lines} lines"
    )
    verdict = "the same" if result.same else f"line {result.lines} differs"
    click.echo(f"{verdict}: {did} ({result.kind}, recorded by presence-proto {result.package})")
    if result.note is not None:
        click.echo(f"the recording ends early: {result.note}")
    return result.same


def _tell(difference: Difference, latest: Iterable[tuple[int, str]]) -> None:
    for number, line in latest:
        if number < difference.line:
            clipped = line if len(line) <= WIDTH else line[:WIDTH] + "…"
            click.echo(f"{number:6}  {clipped.rstrip()}")
    click.echo(f"{difference.line:6}  expected  {difference.expected}")
    click.echo(f"{'':6}  got       {difference.got}")
