"""Who we are, from one run of the program to the next: a small JSON file, made when it is first needed.

Whatever happens, another process or a crash in between included, the file is there in whole or not at all,
and who reads it gets the same user id as everybody else. A damaged file is an error, never a new identity.
"""

from __future__ import annotations

import getpass
import json
import os
import socket
import sys
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from attrs import asdict, field, frozen

from presence_adapters.settings.files import read_private, why_unreadable
from presence_adapters.settings.keys import checked_name
from presence_proto import ConfigError, PresenceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

if sys.platform != "win32":
    import fcntl


class IdentityError(PresenceError):
    """The identity cannot be read, or not be written. The message names the file and what to do."""


@frozen
class StoredIdentity:
    """`user_id` is a UUID. `name_chosen`: whether somebody chose the name, or it is the default one.

    `extra`: what else the file holds, perhaps written by a newer version. It is kept.
    """

    user_id: str
    display_name: str
    name_chosen: bool = False
    extra: Mapping[str, Any] = field(factory=dict, repr=False)


def load_identity(path: Path) -> StoredIdentity:
    """The identity in a file. When there is no file it is made, with a new user id and the default name.

    Raises `IdentityError`.
    """
    path = _real(path)
    found = _read(path)
    if found is not None:
        return found
    with _written(path, StoredIdentity(str(uuid4()), default_name())) as temporary, suppress(FileExistsError):
        _claim(temporary, path)
    found = _read(path)  # ours, or that of the process that was first
    if found is None:
        raise IdentityError(f"{path}: it was there and is gone again: is something else deleting it?")
    return found


def rename_identity(path: Path, display_name: str) -> StoredIdentity:
    """Choose a name. The user id stays; the file is made if there is none.

    Raises `ConfigError` for a name that is empty or cannot be shown, and `IdentityError`.
    """
    display_name = checked_name(display_name)
    path = _real(path)
    before = load_identity(path)
    renamed = StoredIdentity(before.user_id, display_name, True, before.extra)
    with _written(path, renamed) as temporary, _in_words(path):
        os.replace(temporary, path)
        _sync_folder(path.parent)
    return renamed


def default_name() -> str:
    """The name of the login, or else of the host."""
    for source in (getpass.getuser, socket.gethostname):
        try:
            return checked_name(source())
        except (OSError, KeyError, ImportError, ConfigError):  # nobody's login, in a container
            continue
    return "somebody"


def _real(path: Path) -> Path:
    """Where a symbolic link leads: it stays, and the file behind it is written."""
    return Path(os.path.realpath(path))


def _read(path: Path) -> StoredIdentity | None:
    with _in_words(path, "read"):
        try:
            content, _ = read_private(path)
        except FileNotFoundError:
            return None
    try:
        data = json.loads(content)
        if not isinstance(data, dict):
            raise ValueError("it is no JSON object")
        user_id, name = data.pop("user_id", None), data.pop("display_name", None)
        chosen = data.pop("name_chosen", None)
        if not isinstance(user_id, str) or str(UUID(user_id)) != user_id.lower():
            raise ValueError("its user_id is no UUID")
        if not isinstance(name, str) or not isinstance(chosen, bool):
            raise ValueError("it needs a display_name, and a name_chosen that is true or false")
        return StoredIdentity(user_id, checked_name(name), chosen, data)
    except (ValueError, RecursionError) as exc:
        fault = "it is no JSON" if isinstance(exc, (UnicodeError, json.JSONDecodeError)) else str(exc)
        fault = "it is empty" if not content.strip() else fault
        raise IdentityError(
            f"{path}: the identity is damaged, {fault}. Restore the file, or delete it to become a new user"
        ) from None


@contextmanager
def _written(path: Path, identity: StoredIdentity) -> Iterator[Path]:
    """A file beside `path` that holds the identity and is on the disk. It is gone afterwards."""
    data = {**identity.extra, **asdict(identity, filter=lambda attribute, _: attribute.name != "extra")}
    with _in_words(path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with _in_words(path), open(handle, "w", encoding="utf-8") as file:
            json.dump(data, file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        with suppress(OSError):
            temporary.unlink()


def _claim(temporary: Path, path: Path) -> None:
    """Give the file the name `path`, unless there is one. Raises `FileExistsError`, and `IdentityError`."""
    with _in_words(path):
        if sys.platform == "win32":
            os.rename(temporary, path)  # which never replaces a file there
        else:
            try:
                os.link(temporary, path)
            except FileExistsError:
                raise
            except OSError:  # there are no hard links here, such as on FAT and Android
                with _lock(path.parent):
                    if not path.exists():
                        os.replace(temporary, path)
        _sync_folder(path.parent)


if sys.platform != "win32":

    @contextmanager
    def _lock(folder: Path) -> Iterator[None]:
        """One process after the other. A process that dies holds no lock."""
        handle = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


def _sync_folder(folder: Path) -> None:
    """Get the new name to the disk, where a folder can be told to. The file itself is there already."""
    if sys.platform != "win32":
        with suppress(OSError):
            handle = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


@contextmanager
def _in_words(path: Path, verb: str = "write") -> Iterator[None]:
    try:
        yield
    except FileExistsError:
        raise
    except OSError as exc:
        fault = f"cannot {verb} the identity: {why_unreadable(exc)}"
        raise IdentityError(f"{path}: {fault}. The setting identity_file names another place") from None
