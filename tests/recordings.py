"""Recorded endpoints for tests."""

from __future__ import annotations

import json
from typing import Any

from presence_proto.recording import Recorder, ReplayResult, replay


class Recording:
    """A recorder and its lines. `realtime`, `presence` and `hub` take the place of an endpoint's class."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.recorder = Recorder(self.lines.append)
        self.endpoint: Any = None

    def realtime(self, config: Any, *, rng: Any) -> Any:
        self.endpoint = self.recorder.realtime_client(config, rng=rng)
        return self.endpoint

    def presence(self, identity: Any, config: Any, *, rng: Any, online_at: str | None = None) -> Any:
        self.endpoint = self.recorder.presence_client(identity, config, rng=rng, online_at=online_at)
        return self.endpoint

    def hub(self, config: Any = None, *, rng: Any = None) -> Any:
        self.endpoint = self.recorder.hub(config, rng=rng)
        return self.endpoint

    @property
    def text(self) -> str:
        """All that was written so far."""
        return "".join(self.lines)

    def entries(self, *keys: str) -> list[dict[str, Any]]:
        """The lines, decoded; only those that have one of the keys, if any are given."""
        entries = [json.loads(line) for line in self.lines]
        return [entry for entry in entries if not keys or entry.keys() & set(keys)]

    def replayed(self) -> ReplayResult:
        """The recording, closed and replayed."""
        self.recorder.close()
        return replay(self.lines)


def drain(endpoint: Any) -> list[Any]:
    """All outputs."""
    return list(endpoint.drain())
