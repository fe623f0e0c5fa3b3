"""Who is meant by a name, and what strangers' texts look like in a terminal."""

from __future__ import annotations

import io
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from presence_adapters.cli.exits import NoSuchUser
from presence_adapters.cli.output import as_table, describe, find_user, news, online_since, printable
from presence_proto import Connected, OnlineUser, Poked, UserStatus

ADA = OnlineUser("ada-1", "Ada")
ADAM = OnlineUser("adam-1", "Adam")
BOB, BOB_TOO = OnlineUser("bob-1", "Bob"), OnlineUser("bob-2", "Bob")
TRICK = OnlineUser("trick", "ada-1")
MANY = [OnlineUser(f"id{n}", name) for n, name in enumerate(("Xe", "Xi", "Xo", "Xu", "Yo", "Yu", "Ze"))]


@pytest.mark.parametrize(
    ("who", "users", "found"),
    [
        ("ada-1", [TRICK, ADA], ADA),
        ("Ada", [ADAM, ADA], ADA),
        ("ADA", [ADAM, ADA], ADA),
        ("ada", [ADA, OnlineUser("x", "ada")], OnlineUser("x", "ada")),
        ("bob-2", [BOB, BOB_TOO], BOB_TOO),
    ],
)
def test_who_is_meant(who: str, users: list[OnlineUser], found: OnlineUser) -> None:
    assert find_user(who, users) == found


@pytest.mark.parametrize(
    ("who", "users", "problem"),
    [
        ("Ada", [], 'nobody in the room has the id or name "Ada": the room is empty'),
        ("ad", [ADA, ADAM, BOB], 'has the id or name "ad", did you mean Ada (ada-1), Adam (adam-1)?'),
        ("adda", [ADA, BOB], 'has the id or name "adda", did you mean Ada (ada-1)?'),
        ("Quentin", [ADA, BOB], 'has the id or name "Quentin", there are Ada (ada-1), Bob (bob-1)'),
        ("Quentin", MANY, "there are Xe (id0), Xi (id1), Xo (id2), Xu (id3), Yo (id4), 2 more"),
        (
            "bob",
            [BOB, BOB_TOO],
            '2 users in the room are called "bob", give the id of one: Bob (bob-1), Bob (bob-2)',
        ),
        ("\x1b[2J", [ADA], '"\N{REPLACEMENT CHARACTER}[2J"'),
    ],
)
def test_who_is_not_clear(who: str, users: list[OnlineUser], problem: str) -> None:
    with pytest.raises(NoSuchUser) as caught:
        find_user(who, users)
    assert problem in caught.value.message
    assert caught.value.message.isprintable()


def came(online_at: str | None) -> OnlineUser:
    return OnlineUser("ada-1", "Ada", online_at=online_at)


def test_since_when() -> None:
    now = datetime.now().astimezone()
    since = [
        online_since(came(online_at))
        for online_at in (
            now.isoformat(),
            "2026-01-05T10:00:00.000Z",
            None,
            "soon",
            "0001-01-01",
            "9999-12-31",
        )
    ]
    assert since[0] == f"{now:%H:%M}"
    assert since[1] in ("2026-01-05", "2026-01-06")  # the day there is up to the time zone
    assert since[2:4] == ["", ""]
    assert all(len(text) <= 10 for text in since)
    assert online_since(came((now - timedelta(days=3)).isoformat())).count("-") == 2


@pytest.mark.parametrize("text", ["\x1b[2J", "a\nb", "\x9b2J", "\u202eabc", "\u2028", "\udc80", "\x7f"])
def test_a_terminal_obeys_nobody(text: str) -> None:
    assert "\N{REPLACEMENT CHARACTER}" in printable(text)
    assert printable(text).isprintable()
    assert describe(Poked("x", text)).text == f"{printable(text)} pokes you"


def test_other_alphabets_and_faces_stay() -> None:
    text = "Łukasz 木村 👩‍💻 שלום a\xa0b"
    assert printable(text) == text


def test_who_is_there_already_is_news_at_first() -> None:
    busy = OnlineUser("bob-1", "Bob", UserStatus.DO_NOT_DISTURB, "Counting")
    users = (ADA, busy)
    assert [line.text for line in news(Connected(2, users, resumed=False), "ada-1")] == [
        "Connected, 2 online",
        "Bob is here, do not disturb (Counting)",
    ]
    assert len(news(Connected(2, users, resumed=True), "ada-1")) == 1


@pytest.mark.parametrize(
    ("name", "activity"), [("n" * 500, "Counting"), ("Hal", "x" * 3000), ("木村" * 50, "日本語 " * 50)]
)
def test_one_long_text_does_not_hide_the_columns_of_all(name: str, activity: str) -> None:
    long = OnlineUser("a1b2c3d4-0000-4000-8000-000000000000", name, UserStatus.DO_NOT_DISTURB, activity)
    room: Any = SimpleNamespace(device_count=lambda user_id: 1)
    console = Console(file=io.StringIO(), width=80)
    console.print(as_table([long, BOB], room))
    output = console.file.getvalue()  # type: ignore[attr-defined]  # it is a StringIO
    header, first, *_, last = output.splitlines()
    assert header.split() == ["who", "status", "activity", "since", "devices", "id"]
    assert first.startswith(name[:4])
    assert "…" in first
    assert "a1b2c3d4" in first
    assert "bob-1" in last
    assert max(map(len, output.splitlines())) <= 80
