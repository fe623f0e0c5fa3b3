"""The user's identity, stored in a small JSON file that is created on first use.

The file is always complete or absent, even after a crash or with several processes. All processes read the
same user id. A damaged file is an error, and is never replaced with a new identity.
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
    """The identity file cannot be read or written. The message names the file and a remedy."""


@frozen
class StoredIdentity:
    """The content of an identity file. `user_id` is a UUID.

    `name_chosen`: whether the user chose the name; false for the default name. `extra`: unknown fields of the
    file, perhaps from a newer version. Unknown fields are kept when the file is written.
    """

    user_id: str
    display_name: str
    name_chosen: bool = False
    extra: Mapping[str, Any] = field(factory=dict, repr=False)


def load_identity(path: Path) -> StoredIdentity:
    """Return the identity in a file. A missing file is created with a new user id and the default name.

    Raises `IdentityError`.
    """
    path = _real(path)
    found = _read(path)
    if found is not None:
        return found
    with _written(path, StoredIdentity(str(uuid4()), default_name())) as temporary, suppress(FileExistsError):
        _claim(temporary, path)
    found = _read(path)  # the identity of the process that created the file first
    if found is None:
        raise IdentityError(
            f"{path}: the file was created and then deleted: find the program that deletes it"
        )
    return found


def rename_identity(path: Path, display_name: str) -> StoredIdentity:
    """Store a display name and keep the user id. A missing file is created.

    Raises `ConfigError` for a name that is empty or not printable, and `IdentityError`.
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
    """Return the login name, or else the host name, or else "somebody"."""
    for source in (getpass.getuser, socket.gethostname):
        try:
            return checked_name(source())
        except (OSError, KeyError, ImportError, ConfigError):  # a container's user may have no login name
            continue
    return "somebody"


def _real(path: Path) -> Path:
    # Write to the target of a symbolic link, because replacing the path itself would replace the link.
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
            raise ValueError("it is not a JSON object")
        user_id, name = data.pop("user_id", None), data.pop("display_name", None)
        chosen = data.pop("name_chosen", None)
        if not isinstance(user_id, str) or not _is_uuid(user_id):
            raise ValueError("its user_id is not a UUID")
        if not isinstance(name, str) or not isinstance(chosen, bool):
            raise ValueError("it needs a display_name, and a name_chosen that is true or false")
        return StoredIdentity(user_id, checked_name(name), chosen, data)
    except (ValueError, RecursionError) as exc:
        # Show only texts of this function, because the error texts of `json` differ between Python releases.
        is_json = not isinstance(exc, (UnicodeError, json.JSONDecodeError, RecursionError))
        fault = str(exc) if is_json else "it is not JSON"
        fault = "it is empty" if not content.strip() else fault
        raise IdentityError(
            f"{path}: the identity is damaged, {fault}. Restore the file, or delete it to become a new user"
        ) from None


def _is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text.lower()
    except ValueError:
        return False


@contextmanager
def _written(path: Path, identity: StoredIdentity) -> Iterator[Path]:
    """Yield a temporary file beside `path` with the identity, synced to disk. Remove the file afterwards."""
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
    """Rename a temporary file to `path`. Raises `FileExistsError` if `path` exists, or `IdentityError`."""
    with _in_words(path):
        if sys.platform == "win32":
            os.rename(temporary, path)  # on Windows, a rename never replaces an existing file
        else:
            try:
                os.link(temporary, path)
            except FileExistsError:
                raise
            except OSError:  # the file system has no hard links, for example FAT or on Android
                with _lock(path.parent):
                    if not path.exists():
                        os.replace(temporary, path)
        _sync_folder(path.parent)


if sys.platform != "win32":

    @contextmanager
    def _lock(folder: Path) -> Iterator[None]:
        # Use flock, because the kernel releases the lock when a process dies.
        handle = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


def _sync_folder(folder: Path) -> None:
    # Sync the new name to disk if folders can be synced. The file's content is already synced.
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
        raise IdentityError(f"{path}: {fault}. To use another file, set identity_file") from None
