"""`SimWorld`: a hub, its clients, their users and all that can go wrong between them, in virtual time."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

from attrs import evolve

from presence_proto.config import HubConfig, PresenceConfig
from presence_proto.errors import LocalProtocolError
from presence_proto.hub import Hub
from presence_proto.hub.hub import SECOND_CHANCE
from presence_proto.phoenix_socket import PATIENCE
from presence_proto.testing.faulty_hub import FaultyHub, FaultyPhoenixSession
from presence_proto.testing.sim._judges import MessageLog, disagreement
from presence_proto.testing.sim._users import populate
from presence_proto.testing.sim.faults import MAX_STEP_BACK, Chaos, SimFaults
from presence_proto.testing.sim.hosts import ClientHost, HubHost
from presence_proto.testing.sim.laws import LIVENESS
from presence_proto.testing.sim.stage import Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from presence_proto.endpoint import Endpoint
    from presence_proto.hub.admission import Admission
    from presence_proto.hub.channels import PhoenixMember
    from presence_proto.hub.peer import Peer, Session
    from presence_proto.hub.topic import SharedMessage
    from presence_proto.serializer import Message
    from presence_proto.testing.sim.hosts import Host
    from presence_proto.testing.sim.links import LinkQuality
    from presence_proto.testing.sim.stage import SimLog, SimStats


# -------------------------------------------------------------------------------------------------- tardy hub
# A hub that is late with presence states: diffs overtake them, as on a busy server.


class TardySession(FaultyPhoenixSession):
    """Sends the state of a topic after the next message of that topic, or when the client says something."""

    __slots__ = ("_late",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._late: dict[str, Message] = {}  # by topic

    def send(self, message: Message) -> None:
        """Send a message; a state, which is of now, later."""
        if message.event == "presence_state":
            self._late[message.topic] = message
        else:
            super().send(message)
            self._catch_up(message.topic)

    def send_shared(self, shared: SharedMessage) -> None:
        """Send a message that others get, too."""
        super().send_shared(shared)
        self._catch_up(shared.message.topic)

    def forget(self, channel: PhoenixMember) -> None:
        """A channel has ended."""
        super().forget(channel)
        self._late.pop(channel.name, None)

    def _on_message(self, message: Message) -> None:
        for topic in tuple(self._late):
            self._catch_up(topic)
        super()._on_message(message)

    def _catch_up(self, topic: str) -> None:
        state = self._late.pop(topic, None)
        if state is not None:
            super().send(state)


class TardyHub(FaultyHub):
    """A `FaultyHub` of which every other Phoenix connection gets its states late."""

    def _session(self, peer: Peer, admission: Admission) -> Session:
        if admission.serializer is None or peer.conn % 2:
            return super()._session(peer, admission)
        return TardySession(self._look, peer, self._topics, admission, admission.serializer)


# ------------------------------------------------------------------------------------------------------ world


class SimWorld:
    """A world that is the same every time for the same arguments.

    `clients` are made and used by simulated users, who do something every `pace` seconds each, on average.
    `faults` strike every `fault_every` seconds on average, after two minutes of calm. Links are of the
    `quality` given, or of a different one for each client. `log`: keep the log, or call this with each line
    of it. `make_hub` makes the hub, and again after each fall. Without a `hub_config`, the seed says whether
    the hub compresses, and whether it has a `presence_window`. `replay` is what reports say about how to see
    them again.

    Whatever breaks a law raises `SimViolation`, out of `run`, `settle` or a fault. What your own `on_event`
    raises comes out as it is.
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
            make_hub = _tardy_hub
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
        """Set it, and the users do nothing more."""
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
        """The hub of now. For a look at it: commands for it go through `hub_do`."""
        return self._hub_host.endpoint

    @property
    def clients(self) -> Mapping[str, ClientHost]:
        """The hosts of the clients, by name."""
        return self._clients

    @property
    def log(self) -> SimLog:
        """What happened. Iterate over it for its lines."""
        return self._stage.log

    @property
    def stats(self) -> SimStats:
        """What happened, in numbers."""
        return self._stage.stats

    @property
    def settling_time(self) -> float:
        """Seconds within which all must be well after `heal`: the sum of what the configs allow.

        To notice that a connection is dead, to see an attempt hang and wait for the next, to join, to see the
        presence missing and join again, and to track; to see that nobody else returns after a restart, late
        when the host slept; and for the hub, to see that a client is gone.
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
        """Let so much time pass."""
        seconds += 60 * minutes + 3600 * hours
        self._stage.agenda.run(self.now + seconds)
        self.stats.client_hours += len(self._clients) * seconds / 3600

    def after(self, seconds: float, action: Callable[..., Any], *args: Any) -> None:
        """Call `action(*args)` when so many seconds have passed."""
        self._stage.agenda.after(seconds, action, *args)

    def heal(self) -> None:
        """All faults end now, and no new ones come until `resume_faults`."""
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
        """Faults strike again as they did before `heal`."""
        self._chaos.is_on = True
        self._stage.stale_facts = self._stale_facts

    def settle(self) -> float:
        """Let the users rest until everything is as it should be, and return how many seconds that took.

        Every client that shall be connected is, in its channels; every roster is the hub's truth, and that is
        what the clients want to be. Raises `SimViolation` when it is not so within `settling_time`.
        """
        began, rested, self.users_rest = self.now, self.users_rest, True
        if self._problem() is not None:
            self._stage.agenda.run(began + self.settling_time, lambda: self._problem() is None)
        self.stats.client_hours += len(self._clients) * (self.now - began) / 3600
        problem = self._problem()
        if problem is not None:
            self._stage.broken(LIVENESS, "world", problem)
        self._post.taken.clear()  # all were heard
        self.users_rest = rested
        return self.now - began

    def _problem(self) -> str | None:
        return disagreement(self._hub_host, self._clients.values())

    # ---------------------------------------------------------------- who is there

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
        """Add a client of yours, which nobody uses but you, and return its host: `host.do("connect")`.

        `on_event` gets its events, and may call `do`. Every command that returns an id must have an outcome
        within `patience` seconds. `hears_chat`: not so on the Jarvis JSON protocol. `has_grace`: not so with
        `restart_grace=0`. A `PresenceClient` and a
        `RealtimeClient` are held to all laws, other endpoints to the contract. For exact replays give it an
        `rng` of its own.
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
        """A number that was not given out before."""
        self._numbers += 1
        return self._numbers

    # ---------------------------------------------------------------- faults

    def cut(self, name: str, *, how: str = "fin") -> None:
        """End the connection of a client, if it has one.

        `"fin"`: in order, `"rst"`: reset; both sides learn of it. `"near"` and `"far"`: only the client's
        side, or the hub's; the other one finds out when it sends something. `"dead"`: neither side learns of
        it, ever, as when a router forgets a connection.
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
        """For so long nothing arrives on a client's connection: `"up"` to the hub, `"down"` or `"both"`."""
        end = self._clients[name].end
        if end is not None:
            self._struck(f"silence {way}", name)
            for one in {"up": (end,), "down": (end.peer,), "both": (end, end.peer)}[way]:
                one.silence()
                self.after(seconds, one.release)

    def hamper_connects(self, name: str, seconds: float, *, how: str = "refuse") -> None:
        """For so long the connects of a client are refused (`"refuse"`), never finish (`"hang"`), or are
        `"slow"`."""
        client = self._clients[name]
        self._struck(f"connects {how}", name)
        client.connects = how
        self.after(seconds, setattr, client, "connects", "ok")

    def stop_hub(self, down: float = 5.0) -> None:
        """Stop the hub in order (close code 1012). The next one is up `down` seconds after its end."""
        self._struck("hub stopped", "hub")
        self._hub_host.thaw()
        self._hub_host.stop(down)

    def kill_hub(self, down: float = 5.0, *, lost: bool = False) -> None:
        """Kill the hub; with its whole machine when `lost`. The next one is up after `down` seconds."""
        self._struck("machine lost" if lost else "hub killed", "hub")
        self._hub_host.kill(down, lost=lost)

    def end_channel(self, topic: str, *, name: str | None = None, crash: bool = False) -> None:
        """The hub ends a channel, in order or by a crash: of one client, or of all."""
        conn = None
        if name is not None:
            end = self._clients[name].end
            if end is None:
                return
            conn = end.peer.conn
        self._struck("channel crashed" if crash else "channel closed", name or "all")
        self.hub_do("crash_channel" if crash else "close_channel", topic, conn=conn)

    def kick(self, name: str, *, code: int = 1001) -> None:
        """The hub closes the connection of a client."""
        end = self._clients[name].end
        if end is not None and end.peer.conn in self._hub_host.ends:
            self._struck("kicked", name)
            self.hub_do("disconnect", end.peer.conn, code)

    def spoil_hub(self, switch: str, seconds: float) -> None:
        """Turn a switch of a `FaultyHub` on for so long.

        `"refuse_handshakes"` refuses the next two; with `"slow_joins"` a join takes 8 s, and a refusal 13 s.
        """
        hub = self.hub
        if isinstance(hub, FaultyHub) and self._hub_host.is_up and not self._hub_host.is_frozen:
            self._struck(switch.replace("_", " "), "hub")
            if switch == "refuse_handshakes":
                self.hub_do(switch, 2)
            else:
                on, off = ((8.0, 5.0), (0.0, 0.0)) if switch == "slow_joins" else ((True,), (False,))
                self.hub_do(switch, *on)
                self.after(seconds, self._unspoil, hub, switch, off)

    def _unspoil(self, hub: Hub, switch: str, off: tuple[Any, ...]) -> None:
        if hub is self.hub and self._hub_host.is_up:
            self._hub_host.thaw()
            self.hub_do(switch, *off)

    def freeze(self, name: str, seconds: float, *, tick_first: bool = False) -> None:
        """For so long a client, or the `"hub"`, sees nothing of the world; then everything at once.

        `tick_first`: it looks at its clock before it looks at its sockets.
        """
        host = self._host(name)
        if host.is_up and not host.is_frozen:
            self._struck("freeze", name)
            host.freeze()
            self.after(seconds, lambda: host.thaw(tick_first=tick_first))

    def jump_clock(self, name: str, seconds: float) -> None:
        """The clock of a client, or of the `"hub"`, leaps by so many seconds, at most 20 backward."""
        if seconds < -MAX_STEP_BACK:
            raise LocalProtocolError(f"a clock goes back by {MAX_STEP_BACK:g} s at most, not {-seconds:g}")
        host = self._host(name)
        if host.is_up:
            self._struck("clock forward" if seconds > 0 else "clock backward", name)
            host.jump_clock(seconds)

    def tick_early(self, name: str) -> None:
        """Tick a client, or the `"hub"`, although nothing is due."""
        self._struck("early tick", name)
        self._host(name).early_tick()

    def tick_late(self, name: str, lateness: float, seconds: float) -> None:
        """For so long the ticks of a client, or of the `"hub"`, come up to `lateness` seconds late."""
        host = self._host(name)
        self._struck("late ticks", name)
        host.lateness = lateness
        self.after(seconds, setattr, host, "lateness", 0.0)

    def hub_do(self, command: str, *args: Any, **kwargs: Any) -> Any:
        """Call a command of the hub, if it is up and not frozen."""
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


def _tardy_hub(config: HubConfig, rng: Random) -> Hub:
    return TardyHub(config, rng=rng)


def _any_config(seed: int, *, deflate: bool) -> HubConfig:
    window = Random(f"{seed}/window").choice((0.0, HubConfig().presence_window))
    return HubConfig(deflate=deflate, presence_window=window)


# ------------------------------------------------------------------------------------------------------- play
# A whole play, in rounds: a world runs, all faults end, everything becomes well, and they begin again.


ROUND = 450.0
"""Virtual seconds after which all faults end."""
PACE, QUIET_PACE = 60.0, 900.0
"""Seconds between what a user does and does next; with faults there shall be much to break."""


def play_seed(
    seed: int,
    *,
    minutes: float | None = None,
    clients: int | None = None,
    faults: SimFaults = SimFaults.MIXED,
    log: Callable[[str], None] | None = None,
    progress: Callable[[float], None] | None = None,
) -> SimStats:
    """Run the world of a seed, and every few minutes heal it and let it settle. What is not said is up to the
    seed.

    `progress` is called with the virtual seconds of each round. Raises `SimViolation` when a law is broken.
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
