"""Where an archive's files lie: a folder, or whatever fsspec has a file system for."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

from streamer.errors import ArchiveError, ConfigError

Fill = Callable[[BinaryIO], None]


class Store(Protocol):
    """Files by name, `a/b/c`. Any method may raise ArchiveError."""

    def put(self, name: str, fill: Fill) -> int:
        """Writes a file, whole or not at all, in place of what was there; its size.

        When it returns, the file is kept. What `fill` raises is passed on, and nothing is written.
        """
        ...

    def names(self, folder: str) -> list[str]:
        """Of the files in a folder, without the folder, sorted; none where there is no folder."""
        ...

    def open(self, name: str) -> BinaryIO:
        """To read."""
        ...


def open_store(where: str) -> Store:
    """The store at a path or an fsspec URL. Raises ConfigError for one that nothing is known of."""
    if "://" not in where:
        return FolderStore(Path(where).expanduser())
    import fsspec  # type: ignore[import-untyped]

    protocol = where.partition("://")[0]
    try:
        system, root = fsspec.core.url_to_fs(where)
    except (ImportError, ValueError) as exc:
        raise ConfigError(
            f"retention.archive: nothing here reads {protocol}:// ({_told(exc)}); "
            "give a folder, or install what fsspec needs for it, e.g. s3fs for s3://"
        ) from exc
    if protocol in ("file", "local"):
        return FolderStore(Path(root))
    return FsspecStore(system, root, protocol)


class FolderStore:
    """Files on this machine, or on what is mounted here."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    def put(self, name: str, fill: Fill) -> int:
        path = self.root / name
        try:
            new = [folder for folder in path.parents if not folder.exists()]
            path.parent.mkdir(parents=True, exist_ok=True)
            part, part_path = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
            try:
                with os.fdopen(part, "wb") as file:
                    fill(file)
                    file.flush()
                    os.fsync(file.fileno())
                    size = file.tell()
                os.replace(part_path, path)
            except BaseException:
                os.unlink(part_path)
                raise
            for folder in (path.parent, *(folder.parent for folder in new)):
                _sync(folder)
        except OSError as exc:
            raise ArchiveError(f"{path} cannot be written: {_told(exc)}") from exc
        return size

    def names(self, folder: str) -> list[str]:
        path = self.root / folder
        try:
            return sorted(name for name in os.listdir(path) if not name.startswith("."))
        except FileNotFoundError:
            return []
        except OSError as exc:
            raise ArchiveError(f"{path} cannot be read: {_told(exc)}") from exc

    def open(self, name: str) -> BinaryIO:
        path = self.root / name
        try:
            return path.open("rb")
        except OSError as exc:
            raise ArchiveError(f"{path} cannot be read: {_told(exc)}") from exc


class FsspecStore:
    """Files in a file system of fsspec; those that keep objects write them whole or not at all."""

    def __init__(self, system: Any, root: str, protocol: str) -> None:
        self.system = system
        self.root = root.rstrip("/")
        self.protocol = protocol

    def put(self, name: str, fill: Fill) -> int:
        try:
            with tempfile.NamedTemporaryFile(prefix="streamer-archive-") as whole:
                fill(cast(BinaryIO, whole))
                whole.flush()
                size = whole.tell()
                self._send(whole.name, name)
        except OSError as exc:  # a full /tmp, e.g.
            said = f"a temporary file for {self._shown(name)} cannot be written: {_told(exc)}"
            raise ArchiveError(said) from exc
        return size

    def _send(self, file: str, name: str) -> None:
        path = self._path(name)
        try:
            self.system.makedirs(path.rpartition("/")[0], exist_ok=True)
            self.system.put_file(file, path)
        except Exception as exc:
            raise ArchiveError(f"{self._shown(name)} cannot be written: {_told(exc)}") from exc

    def names(self, folder: str) -> list[str]:
        path = self._path(folder)
        try:
            self.system.invalidate_cache(path)
            found = self.system.ls(path, detail=False)
        except FileNotFoundError:
            return []
        except Exception as exc:
            raise ArchiveError(f"{self._shown(folder)} cannot be read: {_told(exc)}") from exc
        return sorted(name.rpartition("/")[2] for name in found)

    def open(self, name: str) -> BinaryIO:
        try:
            return cast(BinaryIO, self.system.open(self._path(name), "rb"))
        except Exception as exc:
            raise ArchiveError(f"{self._shown(name)} cannot be read: {_told(exc)}") from exc

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}"

    def _shown(self, name: str) -> str:
        """Without the URL's place, which may hold a password."""
        return f"{self.protocol}://…/{name}"


def _told(exc: Exception) -> str:
    """The kind of an error, and no more than that of one that may tell a password."""
    strerror = exc.strerror if isinstance(exc, OSError) else None
    return strerror or type(exc).__name__


def _sync(folder: Path) -> None:
    """Makes sure of the names in a folder."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
