"""Files that are whole or absent: made under a temporary name in the same folder, and renamed when complete."""

from __future__ import annotations

import errno
import os
import shutil
import zlib
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import DiskError, InputError, _

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EIO)  # what a disk says that takes no more


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary name beside `path`, with its endings; the file moves to `path` at the end, and goes on an error.

    Raises:
        DiskError: the disk took no more.
    """
    path = Path(path)
    temporary = _temporary(path)
    try:
        yield temporary
        _flush(temporary)
        os.replace(temporary, path)
    except OSError as error:
        if error.errno in FULL:
            raise no_space(path) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _temporary(path: Path) -> Path:
    """A hidden name beside `path`, of its own process and file, short enough where the name is as long as may be."""
    endings = "".join(path.suffixes[-2:])
    return path.with_name(f".{os.getpid()}.{zlib.crc32(os.fsencode(path.name)):08x}{endings[-32:]}")


def _flush(path: Path) -> None:
    """What the disk refuses late, it refuses here."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def require_space(path: Path, count: int) -> None:
    """Raises DiskError unless `count` bytes can be written to `path`, which does not exist afterwards.

    For libraries that crash on a full disk.
    """
    try:
        path.write_bytes(bytes(count))
        _flush(path)
    except OSError as error:
        raise no_space(path) from error
    finally:
        path.unlink(missing_ok=True)


@contextmanager
def making_folder(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary folder beside `path` that becomes `path` at the end, and goes with its files on an error.

    Raises:
        InputError: `path` is there already and not an empty folder: nothing is ever written over.
    """
    path = require_new_folder(path)
    temporary = _temporary(path)
    temporary.mkdir()
    try:
        yield temporary
        if path.is_dir():
            path.rmdir()
        os.replace(temporary, path)
    except OSError as error:
        if error.errno in FULL:
            raise no_space(path) from error
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def no_space(path: str | os.PathLike) -> DiskError:
    """The error for a file that could not be written to its end, as on a full disk."""
    return DiskError(_("Nothing could be written to {parent}; is the disk full?"), parent=Path(path).parent)


def require_new_folder(path: str | os.PathLike) -> Path:
    """`path`, if nothing is there, or an empty folder; else InputError."""
    path = Path(path)
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise InputError(_("{path} is there already and not empty; give the name of a new folder."), path=path)
    return path


def require_writable_parent(path: str | os.PathLike) -> Path:
    """`path`, if the folder that it lies in exists and takes files; else InputError."""
    path = _with_plain_name(path)
    if not path.parent.is_dir():
        raise InputError(
            _("The folder {parent} does not exist; make it first, or write somewhere else."), parent=path.parent
        )
    if not os.access(path.parent, os.W_OK):
        raise InputError(_("{path} cannot be written (no permission for its folder); choose another place."), path=path)
    return path


def require_writable(path: str | os.PathLike, suffixes: tuple[str, ...]) -> Path:
    """`path`, if its folder exists, takes files, and it ends in one of `suffixes`; else InputError."""
    path = Path(path)
    if not path.name.lower().endswith(suffixes):
        raise InputError(
            _("{path} has an ending that cannot be written here; use {names}."), path=path, names=" or ".join(suffixes)
        )
    if path.is_dir():
        raise InputError(_("{path} cannot be written (it is a folder); choose another place."), path=path)
    return require_writable_parent(path)


def require_not_input(written: Iterable[str | Path | None], read: Iterable[str | Path | None]) -> None:
    """Raises InputError if a file to be written is one that is read: its content would be lost."""
    sources = {Path(path).resolve() for path in read if path}
    for path in filter(None, written):
        if Path(path).resolve() in sources:
            raise InputError(_("{path} is read too and would be overwritten; choose another file to write."), path=path)


def existing_file(path: str | os.PathLike) -> Path:
    """`path`, if it is a file; else InputError."""
    path = _with_plain_name(path)
    if path.is_dir():
        raise InputError(_("{path} is a folder; give one file."), path=path)
    if not path.is_file():
        raise InputError(_("There is no file {path}; check the name."), path=path)
    return path


def _with_plain_name(path: str | os.PathLike) -> Path:
    """`path`, if its name is text that every library takes; else InputError."""
    try:
        os.fspath(path).encode("utf-8")
    except UnicodeEncodeError as error:
        shown = os.fspath(path).encode("utf-8", "replace").decode("utf-8")
        raise InputError(
            _("The name of the file {path} is not UTF-8 text; rename the file or its folder."), path=shown
        ) from error
    return Path(path)
