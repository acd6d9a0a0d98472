"""The archive: groups of chunks and blocks of events as files, named by what they hold."""

from __future__ import annotations

import base64
import json
import math
import re
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from streamer.adapters.queue import Entry, Stream
from streamer.archive.store import open_store
from streamer.core.retention import Stretch
from streamer.errors import ArchiveError

_FIELDS = {"head": "json", "body": "safetensors"}
_SUFFIX: dict[Stream, str] = {"tokens": "zip", "events": "jsonl"}
FOLDER = 10_000
"""Chunks whose events are in one folder, so that no folder is too large to be listed."""
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same entries give the same bytes
_JOB = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,159}")
_NAME = re.compile(
    r"(?P<first>\d{10,})-(?P<last>\d{10,})(_(?P<t0>\d+\.\d{3})-(?P<t1>\d+\.\d{3}))?\.(?P<suffix>\w+)"
)


@dataclass(frozen=True, slots=True)
class _File:
    """What a file's name says."""

    name: str
    after: int
    """Chunks up to this one are in files before it."""
    last: int
    t0: float
    t1: float


def archived_as(job_id: str, created_at: float) -> str:
    """A job's name in the archive; a later job of the same id has another one.

    created_at: Unix seconds, as in the job's record.
    """
    return f"{job_id}.{round(created_at * 1000)}"


class Archive:
    """Written by the janitor, read by whoever asks about the past. Safe to share by threads.

    A job has the name that archived_as gives it.
    """

    def __init__(self, where: str) -> None:
        """where: a folder, or an fsspec URL."""
        self.store = open_store(where)

    def write_group(self, job: str, group: Stretch, entries: Iterable[Entry]) -> int:
        """Keeps chunks; the size of their file. Safe to repeat.

        `group` names the file; what iterating over `entries` raises is passed on.
        """

        def fill(file: BinaryIO) -> None:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as bundle:
                for entry in entries:
                    for field, value in entry.fields.items():
                        name = f"{entry.number}.{_FIELDS.get(field, field)}"
                        bundle.writestr(zipfile.ZipInfo(name, _EPOCH), value)

        return self.store.put(_path(job, "tokens", group), fill)

    def write_events(self, job: str, block: Stretch, entries: Iterable[Entry]) -> int:
        """Keeps chunks' events; the size of their file. Safe to repeat."""

        def fill(file: BinaryIO) -> None:
            for entry in entries:
                file.write(_line(entry))

        return self.store.put(_path(job, "events", block), fill)

    def groups(self, job: str, t0: float, t1: float) -> Iterator[Entry]:
        """The chunks of the groups that cover a span of media time, in order.

        Opens their files alone. Raises ArchiveError.
        """
        first, last = (f"{_hour(at):06}" for at in (t0, t1))
        hours = self._folders(job, "tokens")
        before = [hour for hour in hours if hour < first][-1:]  # a group may reach into the next
        wanted = before + [hour for hour in hours if first <= hour <= last]
        for file in self._files(job, "tokens", wanted):
            if file.t1 > t0 and (file.t0 < t1 or file.t0 <= t0):
                yield from _over(file.after, self._group(job, file))

    def events(self, job: str, after: int = 0) -> Iterator[Entry]:
        """The events of the chunks with a number over `after`, in order. Raises ArchiveError."""
        folders = self._folders(job, "events")
        done = [name for name in folders if int(name) <= after][
            :-2
        ]  # a block reaches into the next
        for file in self._files(job, "events", folders[len(done) :]):
            if file.last > after:
                yield from _over(max(after, file.after), self._block(job, file))

    def _folders(self, job: str, stream: Stream) -> list[str]:
        names = self.store.names(f"{_checked(job)}/{stream}")
        return [name for name in names if name.isdecimal()]

    def _files(self, job: str, stream: Stream, folders: Iterable[str]) -> Iterator[_File]:
        last = 0
        for folder in folders:
            path = f"{job}/{stream}/{folder}"
            for name in self.store.names(path):
                match = _NAME.fullmatch(name)
                if match and match["suffix"] == _SUFFIX[stream] and int(match["last"]) > last:
                    after, last = last, int(match["last"])
                    t0, t1 = float(match["t0"] or 0.0), float(match["t1"] or 0.0)
                    yield _File(f"{path}/{name}", after, last, t0, t1)

    def _group(self, job: str, file: _File) -> Iterator[Entry]:
        with self.store.open(file.name) as opened:
            try:
                with zipfile.ZipFile(opened) as bundle:
                    for number, names in _by_number(bundle.namelist()).items():
                        fields = {field: bundle.read(name) for field, name in names.items()}
                        yield Entry(number, fields, f"archive of job {job} tokens")
            except (OSError, zipfile.BadZipFile, ValueError) as exc:
                raise ArchiveError(f"{file.name} in the archive is damaged: {exc}") from exc

    def _block(self, job: str, file: _File) -> Iterator[Entry]:
        with self.store.open(file.name) as opened:
            try:
                for line in opened:
                    yield _entry(line, f"archive of job {job} events")
            except (OSError, ValueError, KeyError, TypeError) as exc:
                raise ArchiveError(f"{file.name} in the archive is damaged: {exc}") from exc


def _over(after: int, entries: Iterator[Entry]) -> Iterator[Entry]:
    return (entry for entry in entries if entry.number > after)


def _path(job: str, stream: Stream, stretch: Stretch) -> str:
    """A file's name. Those of a folder sort by number; a group tells its span, rounded outwards."""
    name = f"{stretch.first:010}-{stretch.last:010}"
    folder = f"{stretch.first // FOLDER * FOLDER:010}"
    if stream == "tokens":
        t0 = math.floor(max(0.0, stretch.t0) * 1e3) / 1e3
        t1 = math.ceil(max(0.0, stretch.t1) * 1e3) / 1e3
        name += f"_{t0:.3f}-{t1:.3f}"
        folder = f"{_hour(stretch.t0):06}"
    return f"{_checked(job)}/{stream}/{folder}/{name}.{_SUFFIX[stream]}"


def _hour(seconds: float) -> int:
    """The folder of a group that starts then: one for each hour of media time."""
    return int(max(0.0, seconds) // 3600)


def _checked(job: str) -> str:
    """It becomes part of a path."""
    if not _JOB.fullmatch(job):
        raise ArchiveError(f"an archive keeps nothing under the name {job[:160]!r}")
    return job


def _by_number(names: list[str]) -> dict[int, dict[str, str]]:
    """Names in a zip file by chunk and field."""
    known = {suffix: field for field, suffix in _FIELDS.items()}
    found: dict[int, dict[str, str]] = {}
    for name in names:
        number, _, suffix = name.partition(".")
        found.setdefault(int(number), {})[known.get(suffix, suffix)] = name
    return found


def _line(entry: Entry) -> bytes:
    """An entry as one line of JSON; a field that is none is kept as base64."""
    value: dict[str, Any] = {"number": entry.number}
    raw = {}
    for name, stored in entry.fields.items():
        try:
            value[name] = json.loads(stored)
        except ValueError:
            raw[name] = base64.b64encode(stored).decode()
    if raw:
        value["raw"] = raw
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def _entry(line: bytes, stream: str) -> Entry:
    value = json.loads(line)
    number, raw = value.pop("number"), value.pop("raw", {})
    fields = {
        name: json.dumps(field, ensure_ascii=False, separators=(",", ":")).encode(
            "utf-8", "surrogatepass"
        )
        for name, field in value.items()
    }
    return Entry(
        number, fields | {name: base64.b64decode(text) for name, text in raw.items()}, stream
    )
