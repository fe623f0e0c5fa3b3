"""`SimWorld`: a simulated hub, its clients, their users and network faults, in virtual time."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

from attrs import evolve

from presence_proto.config import PresenceConfig
from presence_proto.errors import LocalProtocolError
from presence_proto.hub import Hub
from presence_proto.hub.config import HubConfig
from presence_proto.hub.hub import SECOND_CHANCE
from presence_proto.phoenix_socket import PATIENCE
from presence_proto.testing.faulty_hub import Faults, FaultyHub
from presence_proto.testing.sim._judges import MessageLog, disagreement
from presence_proto.testing.sim._users import populate
from presence_proto.testing.sim.faults import MAX_STEP_BACK, Chaos, SimFaults
from presence_proto.testing.sim.hosts import ClientHost, HubHost
from presence_proto.testing.sim.laws import LIVENESS
from presence_proto.testing.sim.stage import Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from presence_proto.endpoint import Endpoint
    from presence_proto.testing.sim.hosts import Host
    from presence_proto.testing.sim.links import LinkQuality
    from presence_proto.testing.sim.stage import SimLog, SimStats


# ------------------------------------------------------------------------------------------------------ world


class SimWorld:
    """A deterministic simulation of a hub and its clients. The same arguments give the same world.

    `clients` is the number of clients with a simulated user, who acts every `pace` seconds on average. After
    two minutes, `faults` strike every `fault_every` seconds on average. `quality` applies to all links; by
    default, each client has a random link quality. `log=True` keeps the log; if `log` is a function, the
    function receives each line. `make_hub` creates the first hub, and a new hub for each restart. Without a
    `hub_config`, the seed decides whether the hub uses compression and whether the hub has a
    `presence_window`. `replay` is the text in reports that explains how to repeat the world.

    `run`, `settle` and the methods for faults raise `SimViolation` when a law is broken. Exceptions from an
    `on_event` function pass through unchanged.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        clients: int = 4,
        faults: SimFaults = SimFaults.NONE,
        fault_every: float = 30.0,
        pace: float = 900.0,
        quality: LinkQuality | None = None,
        hub_config: HubConfig | None = None,
        make_hub: Callable[[HubConfig, Random], Hub] | None = None,
        log: bool | Callable[[str], None] = False,
        replay: str | None = None,
    ) -> None:
        replay = replay or f"SimWorld({seed}, clients={clients}, faults={faults}, pace={pace:g})"
        self._stage = Stage(seed, replay=replay, log=log, quality=quality)
        self._rng = Random(f"{seed}/world")
        config = _any_config(seed, deflate=self._rng.random() < 0.2) if hub_config is None else hub_config
        self._hub_config = evolve(config, wall_clock=config.wall_clock or self._wall_clock)
        if make_hub is None and SimFaults.HUB in faults:
            make_hub = _late_hub
        self._make_hub = make_hub or _plain_hub
        self._hub_host = self._stage.hub = HubHost(
            self._next_hub,
            self._stage,
            clock=self._any_clock(),
            is_terse=config.deflate or config.presence_window > 0,
        )
        self._hub_host.settle()
        self._stale_facts = 0.2 if SimFaults.STALE in faults else 0.0
        self._post = MessageLog.empty()
        self._clients: dict[str, ClientHost] = {}
        self._numbers = 0
        self.users_rest = False
        """Whether the simulated users pause. Set this attribute to pause or resume the users."""
        populate(self, clients, Random(f"{seed}/users"), pace)
        self._chaos = Chaos(self, Random(f"{seed}/chaos"), faults, fault_every)
        self.resume_faults()

    # ---------------------------------------------------------------- getters

    @property
    def now(self) -> float:
        """Seconds since the world began."""
        return self._stage.agenda.now

    @property
    def hub(self) -> Hub:
        """The current hub, for inspection only. Use `hub_do` to call the hub's commands."""
        return self._hub_host.endpoint

    @property
    def clients(self) -> Mapping[str, ClientHost]:
        """The hosts of the clients, by name."""
        return self._clients

    @property
    def log(self) -> SimLog:
        """The log of the world. Iterating over the log yields its lines."""
        return self._stage.log

    @property
    def stats(self) -> SimStats:
        """The counters of the world."""
        return self._stage.stats

    @property
    def settling_time(self) -> float:
        """Maximum duration from `heal` until the world is settled, in seconds: the sum of the timeouts.

        A client may have to notice a dead connection, wait out a hanging connect and a reconnect delay, join,
        rejoin because its presence state is missing, track, and wait for the end of the restart grace. The
        grace lasts longer if the client's host was frozen. The hub may have to notice that a client vanished.
        """
        config, hub = PresenceConfig(server_url="ws://hub.sim"), self._hub_config
        unanswered = PATIENCE * config.join_timeout
        lost = config.heartbeat_interval + config.heartbeat_timeout + unanswered
        back = config.connect_timeout + config.max_reconnect_delay
        join = unanswered + config.join_timeout + config.max_reconnect_delay + config.state_timeout
        tell = config.track_window + config.push_timeout + config.command_timeout
        gone = max(hub.idle_timeout, hub.eviction_timeout + hub.offline_grace) + hub.close_timeout
        gone += hub.presence_window + SECOND_CHANCE
        grace = config.restart_grace + config.heartbeat_timeout
        return lost + back + join + tell + grace + gone + MAX_STEP_BACK

    # ---------------------------------------------------------------- time

    def run(self, *, hours: float = 0.0, minutes: float = 0.0, seconds: float = 0.0) -> None:
        """Advance the virtual time by the sum of the arguments."""
        seconds += 60 * minutes + 3600 * hours
        self._stage.agenda.run(self.now + seconds)
        self.stats.client_hours += len(self._clients) * seconds / 3600

    def after(self, seconds: float, action: Callable[..., Any], *args: Any) -> None:
        """Schedule `action(*args)` in `seconds` of virtual time."""
        self._stage.agenda.after(seconds, action, *args)

    def heal(self) -> None:
        """End all faults. New faults strike only after `resume_faults`."""
        self._note("all faults end")
        self._chaos.is_on = False
        self._stage.stale_facts = 0.0
        self._hub_host.start()
        if isinstance(self.hub, FaultyHub):
            self._hub_host.thaw()
            self.hub_do("heal")
        for host in (self._hub_host, *self._clients.values()):
            host.lateness = 0.0
            host.thaw()
            for end in tuple(host.ends.values()):
                end.release()
        for client in self._clients.values():
            client.connects = "ok"

    def resume_faults(self) -> None:
        """Let faults strike again, as before `heal`."""
        self._chaos.is_on = True
        self._stage.stale_facts = self._stale_facts
        if self._make_hub is _late_hub:
            self.hub_do("set_faults", states_late=True)

    def settle(self) -> float:
        """Pause the users and run until the world is settled. Return the elapsed virtual seconds.

        In a settled world, each client is connected and has joined its channels, if its application wants a
        connection. Every roster equals the hub's presence, and the hub's presence is what the clients want.
        Raises `SimViolation` when the world does not settle within `settling_time`.
        """
        began, rested, self.users_rest = self.now, self.users_rest, True
        if self._problem() is not None:
            self._stage.agenda.run(began + self.settling_time, lambda: self._problem() is None)
        self.stats.client_hours += len(self._clients) * (self.now - began) / 3600
        problem = self._problem()
        if problem is not None:
            self._stage.broken(LIVENESS, "world", problem)
        self._post.taken.clear()  # all of these messages were delivered
        self.users_rest = rested
        return self.now - began

    def _problem(self) -> str | None:
        return disagreement(self._hub_host, self._clients.values())

    # ---------------------------------------------------------------- clients

    def add_client(
        self,
        endpoint: Endpoint,
        *,
        name: str,
        on_event: Callable[[Any], None] | None = None,
        patience: float = 30.0,
        hears_chat: bool = True,
        has_grace: bool = True,
    ) -> ClientHost:
        """Add your own client, without a simulated user, and return its host.

        Call the client's commands through the host: `host.do("connect")`. `on_event` receives the client's
        events, and may call `do`. Every command that returns an id must have an outcome within `patience`
        seconds. Pass `hears_chat=False` for the Jarvis JSON protocol, and `has_grace=False` for
        `restart_grace=0`. All laws apply to a `PresenceClient` and a `RealtimeClient`; only the contract
        applies to other endpoints. Give the client its own `rng` for exact replays. Raises
        `LocalProtocolError` when the name is taken.
        """
        if name in self._clients or name == "hub":
            raise LocalProtocolError(f"there is a {name!r} already")
        host = ClientHost(
            name,
            endpoint,
            self._stage,
            self._post,
            clock=self._any_clock(),
            patience=patience,
            hears_chat=hears_chat,
            has_grace=has_grace,
            on_event=on_event,
        )
        self._clients[name] = host
        return host

    def next_number(self) -> int:
        """Return a number that is unique in this world."""
        self._numbers += 1
        return self._numbers

    # ---------------------------------------------------------------- faults

    def cut(self, name: str, *, how: str = "fin") -> None:
        """Break the open connection of a client. Do nothing if the client has no open connection.

        With `"fin"`, both sides see an orderly end. With `"rst"`, both sides see a reset. With `"near"`, only
        the client sees a reset; with `"far"`, only the hub. The other side sees the reset after its next
        send. With `"dead"`, neither side ever sees the end, as when a router forgets a connection.
        """
        end = self._clients[name].end
        if end is None or not end.is_open:
            return
        self._struck(f"cut {how}", name)
        for one in (end, end.peer):
            if how == "dead":
                one.die()
            elif how in ("fin", "rst") or one is (end if how == "near" else end.peer):
                one.fail("eof" if how == "fin" else "connection reset by peer")

    def silence(self, name: str, seconds: float, *, way: str = "both") -> None:
        """For `seconds`, hold back bytes to the hub (`"up"`), to the client (`"down"`) or both (`"both"`)."""
        end = self._clients[name].end
        if end is not None:
            self._struck(f"silence {way}", name)
            for one in {"up": (end,), "down": (end.peer,), "both": (end, end.peer)}[way]:
                one.silence()
                self.after(seconds, one.release)

    def hamper_connects(self, name: str, seconds: float, *, how: str = "refuse") -> None:
        """For `seconds`, make a client's connection attempts fail (`"refuse"`), never finish (`"hang"`) or
        take up to 30 seconds longer (`"slow"`)."""
        client = self._clients[name]
        self._struck(f"connects {how}", name)
        client.connects = how
        self.after(seconds, setattr, client, "connects", "ok")

    def stop_hub(self, down: float = 5.0) -> None:
        """Shut the hub down with close code 1012. The next hub starts `down` seconds after the hub's end."""
        self._struck("hub stopped", "hub")
        self._hub_host.thaw()
        self._hub_host.stop(down)

    def kill_hub(self, down: float = 5.0, *, lost: bool = False) -> None:
        """Kill the hub's process or, with `lost`, its machine. The next hub starts after `down` seconds."""
        self._struck("machine lost" if lost else "hub killed", "hub")
        self._hub_host.kill(down, lost=lost)

    def end_channel(self, topic: str, *, name: str | None = None, crash: bool = False) -> None:
        """Make the hub close or crash a channel, for the client `name` or for all clients."""
        conn = None
        if name is not None:
            end = self._clients[name].end
            if end is None:
                return
            conn = end.peer.conn
        self._struck("channel crashed" if crash else "channel closed", name or "all")
        self.hub_do("crash_channel" if crash else "close_channel", topic, conn=conn)

    def kick(self, name: str, *, code: int = 1001) -> None:
        """Make the hub close a client's connection with the WebSocket close code `code`."""
        end = self._clients[name].end
        if end is not None and end.peer.conn in self._hub_host.ends:
            self._struck("kicked", name)
            self.hub_do("disconnect", end.peer.conn, code)

    def spoil_hub(self, seconds: float, **faults: Any) -> None:
        """Set some `Faults` of a `FaultyHub` for `seconds`. Do nothing if the hub is not a `FaultyHub`."""
        hub = self.hub
        if isinstance(hub, FaultyHub) and self._hub_host.is_up and not self._hub_host.is_frozen:
            self._struck(" and ".join(faults).replace("_", " "), "hub")
            self.hub_do("set_faults", **faults)
            self.after(seconds, self._unspoil, hub, {name: getattr(Faults(), name) for name in faults})

    def _unspoil(self, hub: Hub, healed: dict[str, Any]) -> None:
        if hub is self.hub and self._hub_host.is_up:
            self._hub_host.thaw()
            self.hub_do("set_faults", **healed)

    def freeze(self, name: str, seconds: float, *, tick_first: bool = False) -> None:
        """Freeze a client or the `"hub"` for `seconds`. Afterwards, deliver all missed facts at once.

        With `tick_first`, the client or hub is ticked before the delivery of these facts.
        """
        host = self._host(name)
        if host.is_up and not host.is_frozen:
            self._struck("freeze", name)
            host.freeze()
            self.after(seconds, lambda: host.thaw(tick_first=tick_first))

    def jump_clock(self, name: str, seconds: float) -> None:
        """Move the clock of a client or of the `"hub"` by `seconds`.

        Raises `LocalProtocolError` for a step of more than 20 seconds backward.
        """
        if seconds < -MAX_STEP_BACK:
            raise LocalProtocolError(f"a clock goes back by {MAX_STEP_BACK:g} s at most, not {-seconds:g}")
        host = self._host(name)
        if host.is_up:
            self._struck("clock forward" if seconds > 0 else "clock backward", name)
            host.jump_clock(seconds)

    def tick_early(self, name: str) -> None:
        """Call `tick` of a client or of the `"hub"` before the deadline."""
        self._struck("early tick", name)
        self._host(name).early_tick()

    def tick_late(self, name: str, lateness: float, seconds: float) -> None:
        """For `seconds`, delay each tick of a client or of the `"hub"` by up to `lateness` seconds."""
        host = self._host(name)
        self._struck("late ticks", name)
        host.lateness = lateness
        self.after(seconds, setattr, host, "lateness", 0.0)

    def hub_do(self, command: str, *args: Any, **kwargs: Any) -> Any:
        """Call a command of the hub and return its result. Return `None` while the hub is down or frozen."""
        if self._hub_host.is_up and not self._hub_host.is_frozen:
            return self._hub_host.do(command, *args, **kwargs)
        return None

    # ---------------------------------------------------------------- inside

    def _host(self, name: str) -> Host:
        return self._hub_host if name == "hub" else self._clients[name]

    def _struck(self, kind: str, name: str) -> None:
        self.stats.faults[kind] += 1
        self._note("{} for {}", kind, name)

    def _note(self, what: str, *args: Any) -> None:
        self.log.note("world", what, *args)

    def _next_hub(self) -> Hub:
        return self._make_hub(self._hub_config, Random(self._rng.getrandbits(64)))

    def _any_clock(self) -> float:
        return self._rng.uniform(0, 100_000)

    def _wall_clock(self) -> str:
        return f"{self.now:015.3f}"


def _plain_hub(config: HubConfig, rng: Random) -> Hub:
    return Hub(config, rng=rng)


def _late_hub(config: HubConfig, rng: Random) -> Hub:
    """Return a hub that sends presence states after later diffs, as a busy server may do."""
    return FaultyHub(config, rng=rng, faults=Faults(states_late=True))


def _any_config(seed: int, *, deflate: bool) -> HubConfig:
    window = Random(f"{seed}/window").choice((0.0, HubConfig().presence_window))
    return HubConfig(deflate=deflate, presence_window=window)


# ------------------------------------------------------------------------------------------------------- play
# A play has rounds. In each round, the world runs with faults, all faults end, and the world settles.


ROUND = 450.0
"""Duration of a round until the end of its faults, in virtual seconds."""
PACE, QUIET_PACE = 60.0, 900.0
"""Average seconds between two actions of a user, with and without faults."""


def play_seed(
    seed: int,
    *,
    minutes: float | None = None,
    clients: int | None = None,
    faults: SimFaults = SimFaults.MIXED,
    log: Callable[[str], None] | None = None,
    progress: Callable[[float], None] | None = None,
) -> SimStats:
    """Run the world of a seed. After every 450 virtual seconds, end all faults and let the world settle.

    The seed chooses `minutes` or `clients` if the argument is `None`. `progress` is called after each round
    with the virtual seconds of the round. Raises `SimViolation` when a law is broken.
    """
    rng = Random(f"{seed}/play")
    some_minutes, some_clients = rng.choice((10.0, 15.0, 20.0)), rng.randint(3, 6)
    options = "".join(
        f" --{name} {value:g}"
        for name, value in (("minutes", minutes), ("clients", clients))
        if value is not None
    )
    kind = "mixed" if faults else "none"
    world = SimWorld(
        seed,
        clients=some_clients if clients is None else clients,
        faults=faults,
        pace=PACE if faults else QUIET_PACE,
        log=log or False,
        replay=f"presence sim --seed {seed}{options} --faults {kind} --log",
    )
    left = 60 * (some_minutes if minutes is None else minutes)
    while left > 0:
        seconds = min(left, ROUND)
        world.run(seconds=seconds)
        left -= seconds
        if faults:
            world.cut(rng.choice([*world.clients]), how="dead")
        world.heal()
        world.settle()
        world.resume_faults()
        if progress is not None:
            progress(seconds)
    return world.stats
