"""The identity: the same for everybody, in whole or not at all, whatever happens in between."""

from __future__ import annotations

import errno
import getpass
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from presence_adapters.settings import identity_file
from presence_adapters.settings.identity_file import (
    IdentityError,
    StoredIdentity,
    default_name,
    load_identity,
    rename_identity,
)
from presence_proto import ConfigError

USER_ID = "6f9619ff-8b86-4011-b42d-00cf4fc964ff"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "identity.json"


def written(path: Path, **more: Any) -> Path:
    path.parent.mkdir()
    data = {"user_id": USER_ID, "display_name": "Ann", "name_chosen": True, **more}
    path.write_text(json.dumps(data))
    return path


def test_it_is_made_once_and_stays(path: Path) -> None:
    made = load_identity(path)
    assert UUID(made.user_id).version == 4
    assert made.display_name == default_name()
    assert not made.name_chosen
    assert load_identity(path) == made
    assert os.listdir(path.parent) == ["identity.json"]
    assert json.loads(path.read_text()) == {
        "user_id": made.user_id,
        "display_name": made.display_name,
        "name_chosen": False,
    }
    if os.name == "posix":
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o077 == 0


def test_two_files_are_two_users(tmp_path: Path) -> None:
    assert load_identity(tmp_path / "a").user_id != load_identity(tmp_path / "b").user_id


def test_a_new_name_is_chosen_and_the_user_stays(path: Path) -> None:
    made = load_identity(path)
    assert rename_identity(path, "  Zoë 🦊 ") == StoredIdentity(made.user_id, "Zoë 🦊", True)
    assert load_identity(path) == StoredIdentity(made.user_id, "Zoë 🦊", True)
    assert os.listdir(path.parent) == ["identity.json"]


def test_the_first_thing_may_be_a_name(path: Path) -> None:
    renamed = rename_identity(path, "Ann")
    assert renamed.name_chosen
    assert load_identity(path) == renamed


@pytest.mark.parametrize("name", ["👩\u200d💻 Ada", "می\u200cخواهم", "אדה", "木村"])
def test_names_in_every_script_and_with_faces(path: Path, name: str) -> None:
    assert rename_identity(path, name).display_name == name
    assert load_identity(path).display_name == name


@pytest.mark.parametrize(
    "name", ["", "  ", "a\nb", "\x1b[2J", "a\u202eb", "\ud800", "\u200d", "\u200c \u200d"]
)
def test_a_name_that_cannot_be_shown_changes_nothing(path: Path, name: str) -> None:
    written(path)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="a display name"):
        rename_identity(path, name)
    assert path.read_bytes() == before


def test_what_a_newer_version_has_written_is_kept(path: Path) -> None:
    written(path, avatar={"colour": "red"}, odd="\ud800")
    rename_identity(path, "Zoë")
    data = json.loads(path.read_text())
    assert data["avatar"] == {"colour": "red"}
    assert data["display_name"] == "Zoë"
    assert load_identity(path).extra == {"avatar": {"colour": "red"}, "odd": "\ud800"}


def test_the_default_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("uid not found")

    monkeypatch.setattr(getpass, "getuser", lambda: "ann")
    monkeypatch.setattr(socket, "gethostname", lambda: "ship")
    assert default_name() == "ann"
    monkeypatch.setattr(getpass, "getuser", nobody)
    assert default_name() == "ship"
    monkeypatch.setattr(socket, "gethostname", lambda: "")
    assert default_name() == "somebody"


# ---------------------------------------------------------------------------------------------- damage


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "it is empty"),
        (b" \n", "it is empty"),
        (b'{"user_id": "6f96', "it is not JSON"),
        (b"\xff\xfe\xff", "it is not JSON"),
        (b"\0" * 200, "it is not JSON"),
        (b"[]", "it is not a JSON object"),
        (b"[" * 100_000, "it is not JSON"),
        (b"{}", "its user_id is not a UUID"),
        (b'{"user_id": 5}', "its user_id is not a UUID"),
        (b'{"user_id": "ann"}', "its user_id is not a UUID"),
        (f'{{"user_id": "{{{USER_ID}}}"}}'.encode(), "its user_id is not a UUID"),
        (f'{{"user_id": "{USER_ID}"}}'.encode(), "it needs a display_name, and a name_chosen"),
        (f'{{"user_id": "{USER_ID}", "display_name": "", "name_chosen": true}}'.encode(), "a display name"),
        (
            f'{{"user_id": "{USER_ID}", "display_name": "a", "name_chosen": 1}}'.encode(),
            "name_chosen that is",
        ),
    ],
)
def test_a_damaged_file_is_an_error_and_stays(path: Path, content: bytes, fault: str) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    for attempt in (lambda: load_identity(path), lambda: rename_identity(path, "Ann")):
        with pytest.raises(IdentityError) as caught:
            attempt()
        assert str(caught.value).startswith(f"{path}: the identity is damaged, ")
        assert fault in str(caught.value)
        assert "delete it to become a new user" in str(caught.value)
        assert path.read_bytes() == content
    assert os.listdir(path.parent) == ["identity.json"]


def test_a_file_that_cannot_be_read_is_an_error(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(IdentityError, match=r"cannot read the identity: .*set identity_file"):
        load_identity(path)


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "mkdir", read_only)
    with pytest.raises(IdentityError, match="cannot write the identity: read-only file system"):
        load_identity(tmp_path / "data" / "identity.json")


def test_a_file_that_goes_away_at_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity_file, "_claim", lambda temporary, path: None)
    with pytest.raises(IdentityError, match="was created and then deleted"):
        load_identity(path)


@pytest.mark.skipif(os.name != "posix", reason="making links takes rights there")
def test_a_link_stays_a_link(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(path)
    made = load_identity(link)
    assert rename_identity(link, "Ann").user_id == made.user_id
    assert link.is_symlink()
    assert load_identity(path).display_name == "Ann"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no FIFOs")
def test_what_is_no_file_is_not_waited_for(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path)
    for call in (load_identity, lambda path: rename_identity(path, "Ann")):
        with pytest.raises(IdentityError) as caught:
            call(path)
        assert str(caught.value) == (
            f"{path}: cannot read the identity: it is not a regular file. "
            "To use another file, set identity_file"
        )
    assert path.is_fifo()


# ---------------------------------------------------------------------------------------------- torn writes


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_rename_that_fails_leaves_the_old_identity(
    path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    written(path)
    monkeypatch.setattr(os, step, full)
    with pytest.raises(IdentityError, match="cannot write the identity: no space left on device"):
        rename_identity(path, "Zoë")
    monkeypatch.undo()
    assert load_identity(path) == StoredIdentity(USER_ID, "Ann", True)
    assert os.listdir(path.parent) == ["identity.json"]


def test_a_first_write_that_fails_leaves_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(IdentityError, match="no space left on device"):
        load_identity(path)
    assert os.listdir(path.parent) == []


KILLED = """
import os, signal, sys
from pathlib import Path
from presence_adapters.settings.identity_file import load_identity, rename_identity

step, path = sys.argv[1], Path(sys.argv[2])
def killed(*_):
    os.kill(os.getpid(), signal.SIGKILL)
setattr(os, step, killed)
load_identity(path) if sys.argv[3] == "load" else rename_identity(path, "Zoe")
"""


@pytest.mark.long
@pytest.mark.skipif(os.name != "posix", reason="there is no such signal")
@pytest.mark.parametrize(
    ("step", "command"), [("fsync", "load"), ("link", "load"), ("fsync", "name"), ("replace", "name")]
)
def test_a_process_that_is_killed_leaves_all_or_nothing(path: Path, step: str, command: str) -> None:
    if command == "name":
        written(path)
    code = subprocess.run([sys.executable, "-c", KILLED, step, str(path), command], check=False).returncode
    assert code == -signal.SIGKILL
    if command == "name":
        assert load_identity(path) == StoredIdentity(USER_ID, "Ann", True)
    else:
        assert not path.exists()
        assert load_identity(path) == load_identity(path)


# ---------------------------------------------------------------------------------------------- races

ROUNDS = 12  # with hard links, and as many without
RACER = f"""
import errno, os, sys, time
from pathlib import Path
from presence_adapters.settings.identity_file import load_identity

def no_links(*_):
    raise PermissionError(errno.EPERM, "no links")
print("ready", flush=True)
start = float(sys.stdin.readline())
for round in range({2 * ROUNDS}):
    if round == {ROUNDS}:
        os.link = no_links
    path = Path(sys.argv[1]) / str(round) / "identity.json"
    time.sleep(max(0, start + round * 0.03 - time.time()))
    print(load_identity(path).user_id, flush=True)
"""


@pytest.mark.long
def test_processes_that_start_at_once_are_one_user(tmp_path: Path) -> None:
    command = [sys.executable, "-c", RACER, str(tmp_path)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    racers = [subprocess.Popen(command, **pipes) for _ in range(3)]
    try:
        for racer in racers:
            assert racer.stdout is not None
            assert racer.stdout.readline() == "ready\n"
        start = f"{time.time() + 0.1}\n"
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write(start)
            racer.stdin.flush()
        seen = [racer.communicate(timeout=60)[0].split() for racer in racers]
    finally:
        for racer in racers:
            racer.kill()
            racer.communicate()
    assert len(seen[0]) == len(set(seen[0])) == 2 * ROUNDS
    assert all(ids == seen[0] for ids in seen)
    for number, user_id in enumerate(seen[0]):
        folder = tmp_path / str(number)
        assert os.listdir(folder) == ["identity.json"]
        assert load_identity(folder / "identity.json").user_id == user_id


@pytest.mark.parametrize("links", ["links", "no links"])
def test_who_comes_second_gets_the_identity_of_the_first(
    path: Path, monkeypatch: pytest.MonkeyPatch, links: str
) -> None:
    """The other process is between our look and our own file."""
    claim = identity_file._claim

    def late(temporary: Path, target: Path) -> None:
        path.write_text(json.dumps({"user_id": USER_ID, "display_name": "Ann", "name_chosen": True}))
        claim(temporary, target)

    def no_links(*_: Any) -> None:
        raise PermissionError(errno.EPERM, "no links")

    monkeypatch.setattr(identity_file, "_claim", late)
    if links == "no links":
        monkeypatch.setattr(os, "link", no_links)
    assert load_identity(path) == StoredIdentity(USER_ID, "Ann", True)
    assert os.listdir(path.parent) == ["identity.json"]
    path.unlink()
    monkeypatch.setattr(identity_file, "_claim", claim)
    assert load_identity(path).user_id != USER_ID
    assert os.listdir(path.parent) == ["identity.json"]
