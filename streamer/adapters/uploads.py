"""Uploads: videos that came in a request, on their way from the API to who decodes them.

A job names one as `upload:<id>`. They are kept for a while and no longer; only the API writes such
a URL into a job, and it accepts none from a request.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Protocol

from streamer.errors import SourceError

SCHEME = "upload:"
PIECE = 1 << 20
"""Bytes that are moved at once."""
_FOLDER = "streamer-upload-"


class Uploads(Protocol):
    """Where uploads are kept. Any method may raise QueueError."""

    def put(self, content: bytes, *, keep_s: float) -> str:
        """The new upload's id; it is forgotten after `keep_s`."""
        ...

    def open(self, upload_id: str) -> Iterator[bytes]:
        """Its bytes in pieces; raises SourceError when there is none, or no longer."""
        ...

    def drop(self, upload_id: str) -> None:
        """Forgets it; nothing happens when it is gone already."""
        ...


def new_id() -> str:
    """One that nobody can guess."""
    return secrets.token_hex(16)


def upload_url(upload_id: str) -> str:
    """The URL of a job that captions it."""
    return f"{SCHEME}{upload_id}"


def upload_id(url: str) -> str | None:
    """The id in the URL of an upload; None for other URLs."""
    found = re.fullmatch(rf"{SCHEME}([0-9a-f]{{32}})", url)
    return found[1] if found else None


def gone(upload_id: str) -> SourceError:
    return SourceError(f"{upload_url(upload_id)}: it is kept no longer; send the video again")


@contextmanager
def on_disk(uploads: Uploads, upload_id: str) -> Iterator[Path]:
    """The upload as a file, alone in a folder of its own, for as long as the context lasts.

    Folders that a killed process has left go as well. Raises SourceError when there is no such
    upload, QueueError.
    """
    _tidy(Path(gettempdir()))
    with TemporaryDirectory(prefix=f"{_FOLDER}{os.getpid()}-") as folder:
        path = Path(folder) / "video"
        with path.open("wb") as file:
            for piece in uploads.open(upload_id):
                file.write(piece)
        yield path


def _tidy(temporary: Path) -> None:
    """Removes the folders of processes that are no more."""
    for folder in temporary.glob(f"{_FOLDER}*-*"):
        pid = folder.name.removeprefix(_FOLDER).partition("-")[0]
        if pid.isdecimal() and not _is_alive(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)  # of somebody else, or removed meanwhile


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # somebody else's, or no pid at all
        return True
    return True
