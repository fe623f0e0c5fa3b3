"""The people of the demo: who they are, what they do, and a director who keeps things happening."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from attrs import frozen

from presence_adapters.asyncio import PresenceClient
from presence_proto import GameInvite, Identity, Poked, PresenceError, UserStatus

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from random import Random

    from presence_proto import PresenceConfig

YOU = "you"

ONLINE, IDLE, AWAY = UserStatus.ONLINE, UserStatus.IDLE, UserStatus.AWAY
IN_GAME, IN_SKILL, BUSY = UserStatus.IN_GAME, UserStatus.IN_SKILL, UserStatus.DO_NOT_DISTURB


@frozen
class Character:
    """Somebody with habits."""

    user_id: str
    name: str
    moods: tuple[tuple[UserStatus, str | None], ...]
    game: str
    sayings: tuple[str, ...]


CAST = (
    Character(
        "ada",
        "Ada",
        (
            (IN_SKILL, "Sketching an engine"),
            (ONLINE, "Proving it halts"),
            (BUSY, "Counting to seven"),
            (ONLINE, None),
        ),
        "Go",
        ("It should work on paper.", "Has anybody seen my notes?", "Again! It is only a loop."),
    ),
    Character(
        "bruno",
        "Bruno",
        (
            (IN_GAME, "Playing Snake"),
            (IN_GAME, "Playing Tetris"),
            (ONLINE, "Between two games"),
            (IDLE, None),
        ),
        "Snake",
        ("One more round.", "New record! 412.", "Who ate my last apple?"),
    ),
    Character(
        "chiara",
        "Chiara",
        ((ONLINE, "Reading the news"), (AWAY, "Making coffee"), (ONLINE, None), (IN_SKILL, "Learning Welsh")),
        "Scrabble",
        ("Good morning, everyone.", "Coffee is ready.", "Is that a word?", "You will not believe this."),
    ),
    Character(
        "dmitri",
        "Dmitri",
        ((IN_GAME, "Playing chess by mail"), (ONLINE, "On a train"), (IDLE, "In a tunnel"), (ONLINE, None)),
        "Chess",
        ("Sorry, the tunnel.", "Can you hear me now?", "Your move, I think."),
    ),
    Character(
        "emeka",
        "Emeka",
        ((AWAY, "Walking the dog"), (ONLINE, None), (IN_SKILL, "Tuning the radio"), (BUSY, "On a call")),
        "Ludo",
        ("Back in a minute.", "The dog says hello.", "Rain again."),
    ),
    Character(
        "fumiko",
        "Fumiko",
        ((IN_SKILL, "Practising the cello"), (IN_GAME, "Playing Othello"), (ONLINE, None), (IDLE, "Tuning")),
        "Othello",
        ("Knock, knock.", "Is everybody asleep?", "Louder in bar nine."),
    ),
    Character(
        "gus",
        "Gus",
        (
            (IDLE, "Staring out of the window"),
            (AWAY, "Asleep"),
            (ONLINE, "Awake, technically"),
            (BUSY, "Dreaming"),
        ),
        "Patience",
        ("Five more minutes.", "What did I miss?", "Mm."),
    ),
)


class Resident:
    """One character and the client that it comes with."""

    def __init__(self, character: Character, config: PresenceConfig, rng: Random) -> None:
        self.character = character
        self._config = config
        self._rng = rng
        self._client: PresenceClient | None = None
        self._mood = 0

    @property
    def is_here(self) -> bool:
        """Whether it is in the room, and knows it."""
        return self._client is not None and self._client.is_connected

    @property
    def is_away(self) -> bool:
        """Whether it has gone, or has not come yet."""
        return self._client is None

    async def live(self) -> None:
        """Come, answer what happens, and stay until `leave`."""
        me = self.character
        async with PresenceClient(Identity(me.user_id, me.name), self._config, rng=self._rng) as self._client:
            async for event in self._client:
                if isinstance(event, GameInvite) and self._rng.random() < 0.3:
                    await self._client.update_activity(
                        IN_GAME, f"Playing {event.game} with {event.display_name}"
                    )
                elif isinstance(event, Poked) and self._rng.random() < 0.3:
                    await self._client.send_chat("lobby", f"Ouch, {event.display_name}!")
        self._client = None

    async def leave(self) -> None:
        """Say goodbye."""
        if self._client is not None:
            await self._client.disconnect()

    async def change(self) -> None:
        """Turn to something else."""
        if self._client is not None:
            await self._client.update_activity(*self.character.moods[self._mood % len(self.character.moods)])
            self._mood += 1

    async def talk(self) -> None:
        """Say something."""
        if self._client is not None:
            await self._client.send_chat("lobby", self._rng.choice(self.character.sayings))

    async def invite(self) -> None:
        """Ask everybody to a game."""
        if self._client is not None:
            await self._client.send_invite(self.character.game, f"{self._rng.randrange(10_000):04}")

    async def poke(self, user_id: str) -> None:
        """Poke somebody."""
        if self._client is not None:
            await self._client.send_poke(user_id)


class Director:
    """Opens with a script in which everything happens once, and goes on with chance.

    `enter` starts a resident's life, `cut` breaks the connection of a user, both without waiting.
    """

    def __init__(
        self,
        residents: Iterable[Resident],
        rng: Random,
        *,
        enter: Callable[[Resident], object],
        cut: Callable[[str], object],
    ) -> None:
        self._people = {resident.character.user_id: resident for resident in residents}
        self._rng = rng
        self._enter = enter
        self._cut = cut

    async def run(self) -> None:
        """See to it until cancelled."""
        for pause, step in self._script():
            await asyncio.sleep(pause)
            await self._do(step)
        while True:
            for _ in range(60):
                await asyncio.sleep(self._rng.uniform(0.3, 1.0))
                await self._do(self._anything)
            self._cut(YOU)

    async def _do(self, step: Callable[[], Awaitable[object]]) -> None:
        # Somebody may have left in this very moment, or wait for the network with too much to say: so is
        # life.
        with suppress(PresenceError):
            await step()

    def _script(self) -> list[tuple[float, Callable[[], Awaitable[object]]]]:
        people = self._people

        async def enter(user_id: str) -> None:
            self._enter(people[user_id])

        async def cut(user_id: str) -> None:
            self._cut(user_id)

        return [
            (0.3, lambda: enter("ada")),
            (0.4, lambda: enter("bruno")),
            (0.4, lambda: enter("chiara")),
            (0.4, people["ada"].change),
            (0.4, people["chiara"].talk),
            (0.4, lambda: enter("dmitri")),
            (0.5, people["bruno"].change),
            (0.5, lambda: people["chiara"].poke(YOU)),
            (0.5, lambda: enter("fumiko")),
            (0.5, people["bruno"].invite),
            (0.6, people["dmitri"].change),
            (0.6, lambda: cut("dmitri")),
            (0.7, people["fumiko"].change),
            (0.7, lambda: enter("emeka")),
            (0.6, people["ada"].talk),
            # We lose our own connection. What happens meanwhile comes as the net difference.
            (0.9, lambda: cut(YOU)),
            (0.1, people["bruno"].leave),
            (0.1, lambda: enter("gus")),
            (0.1, people["chiara"].change),
            (1.6, lambda: people["fumiko"].poke(YOU)),
            (0.7, people["gus"].change),
            (0.7, people["emeka"].change),
            (0.7, people["dmitri"].talk),
            (0.7, lambda: enter("bruno")),
        ]

    async def _anything(self) -> None:
        rng = self._rng
        here = [resident for resident in self._people.values() if resident.is_here]
        away = [resident for resident in self._people.values() if resident.is_away]
        if away and (len(here) < 4 or rng.random() < 0.12):
            self._enter(rng.choice(away))
            return
        if not here:
            return
        who = rng.choice(here)
        match rng.choices(("change", "talk", "invite", "poke", "cut", "leave"), (8, 5, 2, 4, 1, 1))[0]:
            case "change":
                await who.change()
            case "talk":
                await who.talk()
            case "invite":
                await who.invite()
            case "poke":
                others = [other.character.user_id for other in here if other is not who]
                await who.poke(rng.choice([YOU, *others]))
            case "cut":
                self._cut(who.character.user_id)
            case _:
                await who.leave()
