"""The official clients of node: phoenix.js and @supabase/realtime-js, one node process for each peer."""

from __future__ import annotations

import asyncio
import base64
import json
from itertools import count
from pathlib import Path
from typing import Any

from interop.peers import API_KEY, Peer, roster_of

DRIVERS = Path(__file__).parent / "drivers"


def _packed(payload: Any) -> dict[str, Any]:
    if isinstance(payload, bytes):
        return {"base64": base64.b64encode(payload).decode()}
    return {"json": payload}


def _unpacked(packed: dict[str, Any]) -> Any:
    return base64.b64decode(packed["base64"]) if "base64" in packed else packed.get("json")


class NodePeer(Peer):
    """A peer in a node process, which `drivers/lines.mjs` describes."""

    script: str

    def __init__(self, name: str, url: str, vsn: str, node: str) -> None:
        super().__init__(name, url, vsn)
        self._node = node
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._ids = count(1)

    async def open(self, **args: Any) -> None:
        """Start the process and make a client in it."""
        self._process = await asyncio.create_subprocess_exec(
            self._node,
            str(DRIVERS / self.script),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=16 * 1024 * 1024,  # of a line
        )
        self._reader = asyncio.create_task(self._read())
        await self.do("open", url=self.url, vsn=self.vsn, **args)

    async def _connect(self) -> None:
        await self.do("connect")
        await self.until(lambda peer: peer.opened, "connects")

    def ask(self, verb: str, **args: Any) -> asyncio.Future[Any]:
        """Call a method of the driver. The future is of what it returns, or fails when it throws."""
        assert self._process is not None
        assert self._process.stdin is not None
        number = next(self._ids)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        said = {"id": number, "peer": self.name, "verb": verb, "args": {"topic": self.topic, **args}}
        self._process.stdin.write(json.dumps(said).encode() + b"\n")
        return answer

    async def do(self, verb: str, **args: Any) -> Any:
        """Call a method of the driver and return what it returns. Fails when it throws."""
        async with asyncio.timeout(10):
            return await self.ask(verb, **args)

    async def track(self, meta: dict[str, Any]) -> None:
        await self.do("track", meta=meta)

    async def untrack(self) -> None:
        await self.do("untrack")

    async def leave(self) -> None:
        assert await self.do("leave") == "ok"

    async def close(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        assert self._reader is not None
        process.stdin.close()  # the driver ends with its input, and its sockets with it
        try:
            async with asyncio.timeout(10):
                await process.wait()
        except TimeoutError:
            process.kill()
            raise
        finally:
            await self._reader

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        lines, errors = self._process.stdout, asyncio.create_task(self._process.stderr.read())
        while line := await lines.readline():
            said = json.loads(line)
            if "event" in said:
                self._note(said)
            elif "error" in said:
                self._answers.pop(said["id"]).set_exception(AssertionError(f"{self.name}: {said['error']}"))
            else:
                self._answers.pop(said["id"]).set_result(said["ok"])
        error = AssertionError(f"node ended: {(await errors).decode(errors='replace')}")
        for answer in self._answers.values():
            answer.set_exception(error)
            answer.exception()  # if nobody waits for it, that is fine
        self._answers.clear()

    def _note(self, said: dict[str, Any]) -> None:
        match said["event"]:
            case "status":
                self.statuses.append(said["status"])
                self.details.append(said.get("detail"))
            case "sync":
                self.syncs.append(roster_of(said["state"]))
            case "join" | "leave":
                self.note_flip(said["event"], said["key"], said["others"])
            case "message":
                self.heard.append((said["name"], _unpacked(said["payload"])))
            case "system":
                self.systems.append(said["payload"])
            case "heartbeat":
                self.heartbeats += said["status"] == "ok"
            case "socket" if said["what"] == "open":
                self.opened += 1
            case "socket":
                self.closed.append(said["code"])


class SupabaseJsPeer(NodePeer):
    """@supabase/realtime-js."""

    family = "supabase"
    script = "supabase.mjs"

    async def connect(self, *, heartbeat: float = 25.0, token: str | None = None) -> None:
        await self.open(apikey=API_KEY, heartbeat=heartbeat * 1000)
        if token is not None:
            await self.set_token(token)
        await self._connect()

    async def ask_to_join(self, key: str, *, ack: bool = False, echo: bool = False, **more: Any) -> None:
        config = {"broadcast": {"ack": ack, "self": echo}, "presence": {"key": key}}
        await self.do("join", config=config, **more)
        await self.until(lambda peer: peer.statuses, "is answered")

    async def track(self, meta: dict[str, Any]) -> None:
        assert await self.do("track", meta=meta) == "ok"

    async def untrack(self) -> None:
        assert await self.do("untrack") == "ok"

    async def say(self, event: str, payload: Any) -> str:
        return str(await self.do("broadcast", name=event, payload=_packed(payload)))

    async def set_token(self, token: str) -> None:
        await self.do("setAuth", token=token)


class PhoenixJsPeer(NodePeer):
    """phoenix.js, with its Presence."""

    family = "plain"
    script = "phoenix.mjs"

    async def connect(self, *, heartbeat: float = 25.0, token: str | None = None) -> None:
        await self.open(heartbeat=heartbeat * 1000, token=token)
        await self._connect()

    async def ask_to_join(self, key: str, *, ack: bool = False, echo: bool = False, **meta: Any) -> None:
        await self.do("join", key=key, meta=meta)
        await self.until(lambda peer: peer.statuses, "is answered")

    async def say(self, event: str, payload: Any) -> str:
        return str((await self.push(event, payload))[0])

    async def push(self, event: str, payload: Any) -> tuple[str, Any]:
        """The status and response to a push."""
        answer = await self.do("push", name=event, payload=_packed(payload))
        return answer["status"], _unpacked(answer["response"])

    async def set_token(self, token: str) -> None:
        raise NotImplementedError("phoenix.js has no such thing")
