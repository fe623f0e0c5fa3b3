"""The Python side of the protocol between the benchmark and a contestant."""

from __future__ import annotations

import gc
import json
import sys
import time
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from benchmarks.workloads import digest


class Contestant(Protocol):
    """One client, or what stands for one."""

    def run(self) -> int:
        """Take what is to be timed, and return how many events an application was told of. Timed."""
        ...

    def roster(self) -> dict[str, list[str]]:
        """The refs by presence key; with several topics by `topic/key`."""
        ...


@runtime_checkable
class NetworkContestant(Contestant, Protocol):
    """One that takes the messages from a server, `benchmarks.feeder`."""

    def load_from(self, port: int) -> None:
        """Begin anew: online, with the state taken in."""
        ...


class MemoryContestant(Contestant, Protocol):
    """One that is given the messages."""

    def load(self, texts: list[str], topics: list[str]) -> None:
        """Begin anew: online, in these topics, with `texts` taken in."""
        ...

    def prepare(self, texts: list[str]) -> None:
        """Get ready to take these. Not timed."""
        ...


def serve(contestant: MemoryContestant | NetworkContestant) -> None:
    """Do what is asked for on stdin, until it ends."""
    for line in sys.stdin:
        request = json.loads(line)
        if "load" in request:
            if isinstance(contestant, NetworkContestant):
                contestant.load_from(request["port"])
            else:
                texts = Path(request["load"]).read_text("utf-8").splitlines()
                contestant.load(texts[: request["untimed"]], request["topics"])
                contestant.prepare(texts[request["untimed"] :])
            answer: dict[str, Any] = {"ready": True}
        else:
            gc.collect()
            start = time.process_time()
            events = contestant.run()
            cpu = time.process_time() - start
            answer = {"cpu": cpu, "events": events, "digest": digest(contestant.roster())}
        print(json.dumps(answer), flush=True)


def keyed(topics: list[str], topic: str, key: str) -> str:
    """The name of a key in the roster of a contestant."""
    return key if len(topics) == 1 else f"{topic}/{key}"
