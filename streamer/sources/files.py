"""Files of this machine as media files."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from streamer.errors import SourceError
from streamer.sources.guard import TRUSTING, FetchPolicy


class LocalFile:
    """A regular file on this machine. What is checked is the file that was opened, not its name.

    Raises: SourceError for what is not a readable, non-empty file, or is not allowed.
    """

    hint = ""

    def __init__(self, path: Path, shown: str, policy: FetchPolicy = TRUSTING) -> None:
        self.failure: SourceError | None = None
        self._shown = shown
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a FIFO would wait for its writer
        except PermissionError as exc:
            raise SourceError(
                f"{shown}: may not be read by this user; check its permissions"
            ) from exc
        except (OSError, ValueError) as exc:
            why = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
            raise SourceError(f"{shown}: cannot be opened ({why}); check the path") from exc
        try:
            self._check(fd, policy)
        except BaseException:
            os.close(fd)
            raise
        self._file: BinaryIO = os.fdopen(fd, "rb")

    @property
    def path(self) -> Path:
        """A path that leads to this very file for as long as it is open (Linux)."""
        return _link(self._file.fileno())

    def read(self, size: int = -1) -> bytes:
        try:
            return self._file.read(size)
        except OSError as exc:
            self.failure = SourceError(
                f"{self._shown}: reading failed ({exc.strerror}); check the disk"
            )
            return b""

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()

    def _check(self, fd: int, policy: FetchPolicy) -> None:
        if not policy.trusting:
            try:
                opened = os.readlink(_link(fd))
            except OSError as exc:
                raise SourceError(
                    f"{self._shown}: where it lies cannot be checked without /proc; use Linux"
                ) from exc
            policy.check_path(opened, self._shown)
        status = os.fstat(fd)
        if stat.S_ISDIR(status.st_mode):
            raise SourceError(f"{self._shown}: is a folder; name one video file in it")
        if not stat.S_ISREG(status.st_mode):
            raise SourceError(f"{self._shown}: is not a regular file; give a video file")
        if status.st_size == 0:
            raise SourceError(
                f"{self._shown}: the file is empty (0 bytes); check how it was written"
            )


def _link(fd: int) -> Path:
    return Path(f"/proc/self/fd/{fd}")
