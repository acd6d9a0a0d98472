"""Uploads: the contract, and how one becomes a file."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from streamer.adapters.clock import ManualClock
from streamer.adapters.memory_uploads import MemoryUploads
from streamer.adapters.uploads import PIECE, Uploads, on_disk, upload_id, upload_url
from streamer.errors import SourceError


def check_contract(uploads: Uploads) -> None:
    """What every implementation does."""
    for content in (b"", b"a", bytes(PIECE), bytes(2 * PIECE) + b"end"):
        made = uploads.put(content, keep_s=60)
        pieces = list(uploads.open(made))
        assert b"".join(pieces) == content
        assert all(len(piece) <= PIECE for piece in pieces)
        assert b"".join(uploads.open(made)) == content  # as often as one likes
        uploads.drop(made)
        uploads.drop(made)
        with pytest.raises(SourceError, match="kept no longer"):
            list(uploads.open(made))
    assert uploads.put(b"a", keep_s=60) != uploads.put(b"a", keep_s=60)


def test_uploads_in_memory() -> None:
    check_contract(MemoryUploads())


def test_one_that_is_too_old_is_gone() -> None:
    clock = ManualClock()
    uploads = MemoryUploads(clock)
    made = uploads.put(b"a", keep_s=60)
    clock.sleep(61)
    with pytest.raises(SourceError, match="kept no longer"):
        list(uploads.open(made))


def test_a_url_names_one_and_nothing_else_does() -> None:
    made = MemoryUploads().put(b"a", keep_s=60)
    assert upload_id(upload_url(made)) == made
    for url in (f"upload:{made}/../x", "upload:x", f"https://a/upload:{made}", f"upload:{made}\n"):
        assert upload_id(url) is None


def test_a_file_of_it_lies_in_a_folder_of_its_own_while_it_is_needed() -> None:
    uploads = MemoryUploads()
    made = uploads.put(b"video", keep_s=60)
    with on_disk(uploads, made) as path:
        assert path.read_bytes() == b"video"
        assert list(path.parent.iterdir()) == [path]
    assert not path.parent.exists()
    with pytest.raises(SourceError), on_disk(uploads, "0" * 32):
        pass


def test_what_a_killed_process_left_goes_when_the_next_upload_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    # Given a process that was killed while it had a video on disk
    script = (
        "import time\n"
        "from streamer.adapters.memory_uploads import MemoryUploads\n"
        "from streamer.adapters.uploads import on_disk\n"
        "uploads = MemoryUploads()\n"
        "with on_disk(uploads, uploads.put(b'video', keep_s=60)) as path:\n"
        "    print(path, flush=True)\n"
        "    time.sleep(60)\n"
    )
    uploads = MemoryUploads()
    made = uploads.put(b"video", keep_s=60)
    child = subprocess.Popen(
        [sys.executable, "-c", script],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout is not None
        left = Path(child.stdout.readline().strip())
        with on_disk(uploads, made):
            assert left.exists()  # of one that lives
    finally:
        child.kill()
        child.communicate()
    assert left.exists()
    other = tmp_path / "streamer-upload-x-1"
    other.mkdir()
    # When another upload comes
    with on_disk(uploads, made) as path:
        assert sorted(tmp_path.iterdir()) == sorted([path.parent, other])
