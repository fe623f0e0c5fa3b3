"""Many clients in one process: they take what a server says, and check it.

    python -m benchmarks.crowd

- `{"come": n, "port": p, "deflate": bool, "join": bool}`: connect, and with `join` be in the topic, with
  presence, but not present. Answered when all are there.
- `{"hear": count}`: answered when everybody has heard `count` more messages. `wrong` is how many were not
  the next one, see `workloads.shout`.
- `{"say": [texts], "together": n}`: one of them says these, `n` in one moment, and the next when everybody
  has heard those. Answered as the last.
- `{"enter": true}`: everybody joins and becomes present, at once. Answered when everybody sees so many users,
  and nothing more comes: the most diff frames that one got, the bytes of all, and whether the rosters are
  `right`.
"""

from __future__ import annotations

import asyncio
import json
import re
from functools import partial
from typing import Any

from benchmarks.plain_client import Frames, Roster, all_see_all, frame, join_as, track, upgrade, user_id
from benchmarks.requests import allow_many_files, answer, requests

AT_ONCE = 100
"""So many connect before we wait for them."""
QUIET = 0.5
"""Seconds without a word after which nothing more is expected."""
PATIENCE = 60.0
"""Seconds after which something is wrong."""

NUMBER = re.compile(rb'"n":(\d+)')


class Member(asyncio.Protocol):
    """One client."""

    def __init__(self, crowd: Crowd, number: int) -> None:
        self._crowd = crowd
        self._number = number
        self._head = b""
        self._frames: Frames | None = None  # once the server has let us in
        self._transport: asyncio.Transport | None = None
        self.roster = Roster()
        self.heard = 0
        self.bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.say(upgrade(deflate=self._crowd.deflate))

    def connection_lost(self, exc: Exception | None) -> None:
        self._crowd.failed(f"the server has ended a connection ({exc or 'in order'})")

    def data_received(self, data: bytes) -> None:
        try:
            self._take(data)
        except Exception as exc:
            self._crowd.failed(f"{type(exc).__name__}: {exc}")

    def say(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.write(data)

    def enter(self) -> None:
        self.say(join_as(user_id(self._number)) + track(self._number))

    def _take(self, data: bytes) -> None:
        self.bytes += len(data)
        if self._frames is None:
            head, end, data = (self._head + data).partition(b"\r\n\r\n")
            if not end:
                self._head = head
                return
            if not head.startswith(b"HTTP/1.1 101"):
                raise ValueError(head.decode().splitlines()[0])
            if self._crowd.deflate and b"permessage-deflate" not in head:
                raise ValueError("the server does not compress")
            self._frames = Frames(deflate=self._crowd.deflate)
            if self._crowd.join:
                self.say(join_as(user_id(self._number)))
            else:
                self._crowd.arrived()
        for text in self._frames.take(data):
            self._on_text(text)

    def _on_text(self, text: bytes) -> None:
        was_synced = self.roster.is_synced
        if self.roster.take(text):
            if self._crowd.join and not was_synced:
                self._crowd.arrived()
        elif (number := NUMBER.search(text)) is not None:
            self._crowd.heard(self, int(number[1]))
        self._crowd.is_quiet = False


class Crowd:
    """All of them."""

    def __init__(self, *, deflate: bool, join: bool) -> None:
        self.deflate, self.join = deflate, join
        self.is_quiet = True
        self._members: list[Member] = []
        self._wrong = 0
        self._goal = 0  # so many messages are to be heard by everybody
        self._missing = 0  # so many have something to come
        self._fault: str | None = None
        self._done = asyncio.Event()

    # ---------------------------------------------------------------- what happens to members

    def arrived(self) -> None:
        """One has what was to come."""
        self._missing -= 1
        if not self._missing:
            self._done.set()

    def heard(self, member: Member, number: int) -> None:
        """One has heard a message."""
        self._wrong += number != member.heard
        member.heard += 1
        if member.heard == self._goal:
            self.arrived()

    def failed(self, why: str) -> None:
        """That is the end."""
        self._fault = self._fault or why
        self._done.set()

    # ---------------------------------------------------------------- what is asked for

    async def come(self, count: int, port: int) -> None:
        """Connect, and be there."""
        loop = asyncio.get_running_loop()
        for at in range(0, count, AT_ONCE):
            numbers = range(at, min(at + AT_ONCE, count))
            self._expect(len(numbers))
            for number in numbers:
                make = partial(Member, self, number)
                _, member = await loop.create_connection(make, "127.0.0.1", port)
                self._members.append(member)
            await self._all()

    async def hear(self, count: int) -> int:
        """Returns how many messages were wrong."""
        self._goal += count
        self._expect(sum(member.heard < self._goal for member in self._members))
        await self._all()
        wrong, self._wrong = self._wrong, 0
        return wrong

    async def say(self, texts: list[str], together: int) -> int:
        """One says these. Returns how many messages were wrong."""
        wrong = 0
        frames = [frame("1", None, *json.loads(text)[2:]) for text in texts]
        for first in range(0, len(frames), together):
            some = frames[first : first + together]
            self._members[0].say(b"".join(some))
            wrong += await self.hear(len(some))
        return wrong

    async def enter(self) -> dict[str, Any]:
        """Everybody joins and becomes present."""
        before = sum(member.bytes for member in self._members)
        for member in self._members:
            member.enter()
        rosters = [member.roster for member in self._members]
        try:
            async with asyncio.timeout(PATIENCE):
                while self._fault is None and any(len(one.there) < len(rosters) for one in rosters):
                    await asyncio.sleep(QUIET / 10)
        except TimeoutError:
            pass  # the rosters are not right then
        await self._until_quiet()
        return {
            "diffs": max(roster.diffs for roster in rosters),
            "bytes": sum(member.bytes for member in self._members) - before,
            "right": all_see_all(rosters),
        }

    async def _until_quiet(self) -> None:
        self.is_quiet = False
        while not self.is_quiet and self._fault is None:
            self.is_quiet = True
            await asyncio.sleep(QUIET)
        self._check()

    def _expect(self, count: int) -> None:
        self._missing = count
        if count:
            self._done.clear()

    async def _all(self) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                await self._done.wait()
        except TimeoutError:
            self.failed(f"{self._missing} clients have waited for {PATIENCE:g} s in vain")
        self._check()

    def _check(self) -> None:
        if self._fault is not None:
            raise RuntimeError(self._fault)


async def main() -> None:
    """Do what is asked for on stdin, until it ends."""
    allow_many_files()
    crowd = None
    async for request in requests():
        if "come" in request:
            crowd = Crowd(deflate=request["deflate"], join=request["join"])
            await crowd.come(request["come"], request["port"])
            answer(come=request["come"])
            continue
        assert crowd is not None
        if "hear" in request:
            answer(wrong=await crowd.hear(request["hear"]))
        elif "say" in request:
            answer(wrong=await crowd.say(request["say"], request["together"]))
        else:
            answer(**await crowd.enter())


if __name__ == "__main__":
    asyncio.run(main())
