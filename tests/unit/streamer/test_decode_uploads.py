"""Uploads at who decodes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamer.actors.decode import DecodeWorker, Failure, Reading
from streamer.adapters.memory_uploads import MemoryUploads
from streamer.adapters.uploads import upload_url
from streamer.sources.guard import FetchPolicy
from streamer.types import FrameChunk
from tests.clips import render

STRANGERS = FetchPolicy()
"""No files, and no inside addresses."""


def reading(upload: str) -> Reading:
    return Reading(job="cam", url=upload_url(upload), fps=2.0, chunk_s=2.0)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    return tmp_path / "temporary"


def test_an_upload_is_read_and_leaves_no_file(tmp_path: Path, folder: Path) -> None:
    render(tmp_path / "clip.mp4", 40)
    uploads = MemoryUploads()
    sent = uploads.put((tmp_path / "clip.mp4").read_bytes(), keep_s=60)
    worker = DecodeWorker(STRANGERS, uploads=uploads)
    first = worker.read(reading(sent), 0.0)
    assert isinstance(first, FrameChunk)
    assert len(list(folder.iterdir())) == 1
    worker.close("cam")
    assert list(folder.iterdir()) == []


def test_one_that_is_no_video_or_gone_is_told_and_leaves_no_file(folder: Path) -> None:
    uploads = MemoryUploads()
    worker = DecodeWorker(STRANGERS, uploads=uploads)
    for upload in (uploads.put(b"This is not a video." * 99, keep_s=60), "0" * 32):
        assert isinstance(worker.read(reading(upload), 0.0), Failure)
    assert list(folder.iterdir()) == []


def test_an_upload_leads_to_no_other_file(tmp_path: Path, folder: Path) -> None:
    render(tmp_path / "clip.mp4", 40)
    playlist = f"#EXTM3U\n#EXTINF:2,\n{(tmp_path / 'clip.mp4').as_uri()}\n#EXT-X-ENDLIST\n"
    uploads = MemoryUploads()
    worker = DecodeWorker(STRANGERS, uploads=uploads)
    failed = worker.read(reading(uploads.put(playlist.encode(), keep_s=60)), 0.0)
    assert isinstance(failed, Failure)
