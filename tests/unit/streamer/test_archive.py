"""The archive: what was written comes back, from a folder as from any file system of fsspec."""

from __future__ import annotations

import errno
import json
import os
import uuid
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from streamer.actors.keeper import keep
from streamer.adapters.queue import Entry
from streamer.archive import Archive, archived_as
from streamer.config import RetentionSettings, Settings
from streamer.core.retention import Stretch
from streamer.errors import ArchiveError, ConfigError, QueueError
from streamer.events import Event, Totals, decode_chunk_events, decode_totals, encode_chunk_events


def group(first: int, last: int, t0: float | None = None, t1: float | None = None) -> Stretch:
    return Stretch(
        first=first,
        last=last,
        entries=last - first + 1,
        t0=first - 1.0 if t0 is None else t0,
        t1=float(last) if t1 is None else t1,
        size=1,
    )


def chunk(number: int) -> Entry:
    return Entry(number, {"head": b'{"number":%d}' % number, "body": bytes([number, 0, 255])})


def chunks(first: int, last: int) -> list[Entry]:
    return [chunk(number) for number in range(first, last + 1)]


def event_entry(number: int) -> Entry:
    event = Event(
        id=f"{number}-0",
        event="caption",
        job="cam",
        chunk=number,
        t0=number - 1.0,
        t1=number + 0.1,
        question="q",
        text="grün \u2028 \n 😀",
    )
    return Entry(number, encode_chunk_events([event], Totals(chunks=number, t1=event.t1)))


def numbers(entries: Iterator[Entry]) -> list[int]:
    return [entry.number for entry in entries]


@pytest.fixture(params=["folder", "file URL", "memory URL"])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Archive:
    where = {
        "folder": str(tmp_path / "a folder"),
        "file URL": f"file://{tmp_path}/a",
        "memory URL": f"memory://{uuid.uuid4().hex}/a",
    }
    return Archive(where[request.param])


def test_chunks_come_back_as_they_were(archive: Archive) -> None:
    entries = [
        *chunks(1, 3),
        Entry(4, {"head": b'{"kind":"gap"}'}),
        Entry(5, {"head": b"\xff", "x": b""}),
    ]
    assert archive.write_group("cam", group(1, 5), entries) > 0
    back = list(archive.groups("cam", 0, 9))
    assert [(e.number, e.fields) for e in back] == [(e.number, e.fields) for e in entries]
    assert back[0].where == "archive of job cam tokens entry 1"


def test_a_span_opens_the_groups_that_cover_it_and_no_other(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given groups of 0 to 4, 4 to 10 and 12 to 13.0004 s, written in any order
    archive.write_group("cam", group(11, 13, t0=12.0, t1=13.0004), chunks(11, 13))
    archive.write_group("cam", group(1, 4, t0=0.0, t1=4.0), chunks(1, 4))
    archive.write_group("cam", group(5, 10, t0=4.0, t1=10.0), chunks(5, 10))
    archive.write_group("other", group(1, 1), chunks(1, 1))
    opened: list[str] = []
    really = archive.store.open

    def look(name: str) -> BinaryIO:
        opened.append(name)
        return really(name)

    monkeypatch.setattr(archive.store, "open", look)

    def found(t0: float, t1: float) -> list[int]:
        opened.clear()
        return sorted({n for n in numbers(archive.groups("cam", t0, t1)) if n in (1, 5, 11)})

    # Then each span has its groups, in order, and only those are opened
    for span, firsts in {
        (0.0, 99.0): [1, 5, 11],
        (1.0, 2.0): [1],
        (3.0, 4.0): [1],
        (3.0, 4.5): [1, 5],
        (4.0, 4.0): [5],
        (10.5, 11.0): [],
        (11.0, 12.5): [11],
        (13.0, 14.0): [11],
        (13.1, 14.0): [],
    }.items():
        assert (span, found(*span)) == (span, firsts)
        assert len(opened) == len(firsts)
    assert numbers(archive.groups("cam", 0, 99)) == [*range(1, 11), 11, 12, 13]
    assert numbers(archive.groups("nobody", 0, 99)) == []


def test_of_a_long_archive_only_the_hours_that_matter_are_listed(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a day of groups of half an hour, one of them with a gap of two hours at its end
    spans, at, number = [], 900.0, 1
    while at < 86_400:
        spans.append((number, at, at + (9000.0 if number == 11 else 1800.0)))
        at, number = spans[-1][2], number + 1
    for number, t0, t1 in spans:
        archive.write_group("cam", group(number, number, t0=t0, t1=t1), chunks(number, number))
    listed: list[str] = []
    really = archive.store.names

    def look(folder: str) -> list[str]:
        listed.append(folder)
        return really(folder)

    monkeypatch.setattr(archive.store, "names", look)
    # Then any span has its groups, after a look at few folders
    for t0 in range(0, 86_400, 450):
        for seconds in (0, 60, 2000):
            listed.clear()
            found = [entry.number for entry in archive.groups("cam", t0, t0 + seconds)]
            covering = [
                number for number, a, b in spans if t0 < b and (a < t0 + seconds or a <= t0)
            ]
            assert (t0, seconds, found) == (t0, seconds, covering)
            assert len(listed) <= 4


def test_events_of_many_folders_come_in_order(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    for first, last in ((9_990, 10_010), (10_011, 10_011), (19_995, 20_005), (30_000, 30_000)):
        entries = [event_entry(number) for number in range(first, last + 1)]
        archive.write_events("cam", group(first, last), entries)
    written = [*range(9_990, 10_012), *range(19_995, 20_006), 30_000]
    for after in (0, 9_999, 10_000, 10_005, 10_011, 19_999, 20_000, 20_003, 29_999, 30_000):
        found = numbers(archive.events("cam", after=after))
        assert (after, found) == (after, [number for number in written if number > after])
    # and what is long read is not listed again
    listed: list[str] = []
    really = archive.store.names

    def look(folder: str) -> list[str]:
        listed.append(folder)
        return really(folder)

    monkeypatch.setattr(archive.store, "names", look)
    assert numbers(archive.events("cam", after=30_000)) == []
    assert len(listed) == 3


def test_events_come_back_as_they_were(archive: Archive) -> None:
    archive.write_events("cam", group(3, 4), [event_entry(3), event_entry(4)])
    archive.write_events("cam", group(1, 2), [event_entry(1), event_entry(2)])
    back = list(archive.events("cam"))
    for entry, number in zip(back, range(1, 5), strict=True):
        assert decode_chunk_events(entry) == decode_chunk_events(event_entry(number))
        assert decode_totals(entry) == decode_totals(event_entry(number))
    assert numbers(archive.events("cam", after=1)) == [2, 3, 4]
    assert numbers(archive.events("cam", after=2)) == [3, 4]
    assert numbers(archive.events("cam", after=4)) == []


def test_events_that_cannot_be_read_come_back_too(archive: Archive) -> None:
    entry = Entry(7, {"schema": b"1", "events": b"said\xff", "speech": b'{"a":[1,2.5,null]}'})
    archive.write_events("cam", group(7, 7), [entry])
    (back,) = archive.events("cam")
    assert back.fields == entry.fields


def test_to_write_again_changes_nothing(archive: Archive) -> None:
    for _ in range(2):
        archive.write_group("cam", group(1, 2), chunks(1, 2))
        archive.write_events("cam", group(1, 2), [event_entry(1), event_entry(2)])
    assert numbers(archive.groups("cam", 0, 9)) == [1, 2]
    assert numbers(archive.events("cam")) == [1, 2]


def test_files_that_overlap_give_every_entry_once(archive: Archive) -> None:
    for first, last in ((1, 3), (1, 5), (4, 8)):
        stretch = group(first, last)
        archive.write_group("cam", stretch, chunks(first, last))
        archive.write_events("cam", stretch, map(event_entry, range(first, last + 1)))
    assert numbers(archive.groups("cam", 0, 99)) == list(range(1, 9))
    assert numbers(archive.events("cam")) == list(range(1, 9))


def test_what_ends_early_leaves_no_file(archive: Archive) -> None:
    def broken() -> Iterator[Entry]:
        yield chunk(1)
        raise QueueError("Redis is lost")

    archive.write_group("cam", group(5, 6), chunks(5, 6))
    for write in (archive.write_group, archive.write_events):
        with pytest.raises(QueueError, match="Redis is lost"):
            write("cam", group(1, 2), broken())
    assert numbers(archive.groups("cam", 0, 9)) == [5, 6]
    assert numbers(archive.events("cam")) == []


def test_any_tool_reads_the_files(tmp_path: Path) -> None:
    archive = Archive(str(tmp_path))
    archive.write_group("cam", group(1, 2, t0=0.0, t1=4.0), chunks(1, 2))
    archive.write_events("cam", group(1, 1), [event_entry(1)])
    files = sorted(
        str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()
    )
    assert files == [
        "cam/events/0000000000/0000000001-0000000001.jsonl",
        "cam/tokens/000000/0000000001-0000000002_0.000-4.000.zip",
    ]
    with zipfile.ZipFile(tmp_path / files[1]) as bundle:
        assert bundle.namelist() == ["1.json", "1.safetensors", "2.json", "2.safetensors"]
        assert {info.compress_type for info in bundle.infolist()} == {zipfile.ZIP_STORED}
        assert json.loads(bundle.read("2.json")) == {"number": 2}
    (line,) = (tmp_path / files[0]).read_text().splitlines()
    value = json.loads(line)
    assert (value["number"], value["schema"]) == (1, 1)
    assert value["events"][0]["text"] == "grün \u2028 \n 😀"
    assert value["totals"]["chunks"] == 1


def test_the_same_chunks_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        Archive(str(tmp_path / name)).write_group("cam", group(1, 2), chunks(1, 2))
    a, b = (next((tmp_path / name / "cam" / "tokens" / "000000").iterdir()) for name in ("a", "b"))
    assert (a.name, a.read_bytes()) == (b.name, b.read_bytes())


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    archive = Archive(str(tmp_path / "file"))
    with pytest.raises(ArchiveError, match=r"file/cam/tokens/.*\.zip cannot be written: Not a dir"):
        archive.write_group("cam", group(1, 1), chunks(1, 1))


def test_a_file_that_is_being_written_is_not_seen(tmp_path: Path) -> None:
    archive = Archive(str(tmp_path))

    def watched() -> Iterator[Entry]:
        yield chunk(1)
        assert numbers(archive.groups("cam", 0, 9)) == []
        assert os.listdir(tmp_path / "cam" / "tokens" / "000000")

    archive.write_group("cam", group(1, 1), watched())
    assert numbers(archive.groups("cam", 0, 9)) == [1]


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    archive = Archive(str(tmp_path))
    archive.write_group("cam", group(1, 1), chunks(1, 1))
    archive.write_events("cam", group(1, 1), [event_entry(1)])
    for path in tmp_path.rglob("*.*"):
        path.write_bytes(b"{" + path.read_bytes()[:-9])
    with pytest.raises(ArchiveError, match=r"cam/tokens/.*zip in the archive is damaged"):
        list(archive.groups("cam", 0, 9))
    with pytest.raises(ArchiveError, match=r"cam/events/.*jsonl in the archive is damaged"):
        list(archive.events("cam"))


def test_files_that_are_not_its_own_are_passed_over(tmp_path: Path) -> None:
    archive = Archive(str(tmp_path))
    archive.write_group("cam", group(1, 1), chunks(1, 1))
    for name in ("notes.txt", "1-2.zip", "0000000002-0000000003_0.000-1.000.jsonl"):
        (tmp_path / "cam" / "tokens" / name).write_text("!")
        (tmp_path / "cam" / "tokens" / "000000" / name).write_text("!")
    assert numbers(archive.groups("cam", 0, 9)) == [1]


def test_a_url_that_nothing_reads_is_told_without_its_password() -> None:
    with pytest.raises(ConfigError, match=r"retention\.archive: nothing here reads nosuch://") as e:
        Archive("nosuch://user:secret@host/bucket")
    assert "secret" not in str(e.value)
    assert "secret" not in repr(e.value.__cause__)


def test_trouble_with_a_file_system_is_told_without_its_password() -> None:
    archive = Archive("memory://secret/a")

    class Broken:
        def __getattr__(self, name: str) -> object:
            raise RuntimeError("no way to user:secret@host")

    archive.store.system = Broken()  # type: ignore[attr-defined]
    for call in (
        lambda: archive.write_group("cam", group(1, 1), chunks(1, 1)),
        lambda: list(archive.groups("cam", 0, 9)),
    ):
        with pytest.raises(ArchiveError, match=r"memory://…/cam/tokens.* RuntimeError") as e:
            call()
        assert "secret" not in str(e.value)


def test_no_room_for_a_temporary_file_is_trouble_with_the_archive() -> None:
    def full() -> Iterator[Entry]:
        yield chunk(1)
        raise OSError(errno.ENOSPC, "No space left on device")

    archive = Archive(f"memory://{uuid.uuid4().hex}/a")
    with pytest.raises(ArchiveError, match=r"cam/tokens/.*zip cannot be written: No space left"):
        archive.write_group("cam", group(1, 2), full())
    assert numbers(archive.groups("cam", 0, 9)) == []


def test_a_job_made_anew_has_another_name() -> None:
    names = {archived_as("cam", at) for at in (1764158400.123, 1764158400.124, 0.0)}
    assert names == {"cam.1764158400123", "cam.1764158400124", "cam.0"}
    longest = archived_as("a" * 128, 1764158400.123)
    archive = Archive(f"memory://{uuid.uuid4().hex}/a")
    archive.write_group(longest, group(1, 1), chunks(1, 1))
    assert numbers(archive.groups(longest, 0, 9)) == [1]


@pytest.mark.parametrize("name", ["", "..", "../cam", "cam/tokens", "/etc"])
def test_a_name_leads_nowhere_else(archive: Archive, name: str) -> None:
    with pytest.raises(ArchiveError, match="keeps nothing under the name"):
        archive.write_group(name, group(1, 1), chunks(1, 1))
    with pytest.raises(ArchiveError, match="keeps nothing under the name"):
        list(archive.groups(name, 0, 9))


def test_the_service_does_not_begin_with_an_archive_that_cannot_be() -> None:
    settings = Settings(retention=RetentionSettings(archive="nosuch://user:secret@host/bucket"))
    with pytest.raises(ConfigError, match=r"retention\.archive: nothing here reads nosuch://"):
        keep(settings)
