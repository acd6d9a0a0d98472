"""Child: the process that decodes one connection of a live source.

It ends with the connection; who started it makes the next one. What to read comes on stdin, for a
command line is there for everyone to see. Messages go to the file descriptor that is named.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import closing
from dataclasses import replace
from typing import IO, TYPE_CHECKING, Any

from av.video.reformatter import VideoReformatter

from streamer.errors import SourceError
from streamer.sources.fetch import Fetcher
from streamer.sources.guard import is_refusal
from streamer.sources.live.connection import connect
from streamer.sources.live.messages import Message, write
from streamer.sources.live.sampling import LiveSampler
from streamer.sources.live.task import Task
from streamer.sources.live.timeline import Timeline
from streamer.sources.pyav_reader import NoVideo, Opened, View
from streamer.sources.transport import GuardedTransport
from streamer.sources.url import STREAMS, redact, scheme_of

if TYPE_CHECKING:
    from streamer.sources.live.http import HttpFeed

_ALIVE_S = 0.2


def main(stdin: IO[bytes], out: IO[bytes]) -> None:
    """Decodes until the connection ends, and says why it did."""
    task = Task.from_json(stdin.read())
    try:
        if scheme_of(task.url) in STREAMS:
            _read_stream(task, out)
        else:
            _read_http(task, out)
        end = Message(kind="over")
    except NoVideo as exc:
        end = Message(kind="never", reason=str(exc))
    except SourceError as exc:
        end = Message(kind="never" if is_refusal(exc) else "lost", reason=str(exc))
    write(out, end)


def _read_stream(task: Task, out: IO[bytes]) -> None:
    anchor = task.anchor and replace(task.anchor, offset=None)  # its clock begins anew
    sender = _Sender(task, Timeline(anchor), out)
    with closing(connect(task.url, limits=task.limits, policy=task.policy)) as opened:
        sender.send(opened)
    raise SourceError(f"{redact(task.url)}: the server ended the stream; check the camera")


def _read_http(task: Task, out: IO[bytes]) -> None:
    from streamer.sources.live.http import HttpFeed

    shown = redact(task.url)
    transport = GuardedTransport(task.policy)
    with closing(transport):
        feed = HttpFeed(
            task.url,
            Fetcher(task.limits, transport),
            resume=task.place,
            again=task.anchor is not None,
        )
        sender: _Sender | None = None
        for stretch in feed.stretches():
            if sender is None:
                anchor = task.anchor
                if anchor is not None and not stretch.continuous:
                    anchor = replace(anchor, offset=None)
                sender = _Sender(task, Timeline(anchor, behind_s=stretch.behind_s), out)
            else:
                sender.timeline.begin(follows=stretch.continuous, missed_s=stretch.missed_s)
            with closing(Opened(stretch.file, shown, task.limits)) as opened:
                sender.send(opened, feed)


class _Sender:
    """Sends what is on screen at k/fps, and signs of life between."""

    def __init__(self, task: Task, timeline: Timeline, out: IO[bytes]) -> None:
        self.timeline = timeline
        self._out = out
        self._sampler: LiveSampler[tuple[Any, View]] = LiveSampler(fps=task.fps)
        self._reformatter = VideoReformatter()
        self._said_at = -_ALIVE_S
        self._spent_s = time.process_time()

    def send(self, opened: Opened, feed: HttpFeed | None = None) -> None:
        """Everything of a container. Raises: SourceError when reading it fails."""
        nominal_s = opened.nominal_s
        for item, view in opened.views():
            arrival = time.monotonic()
            t = self.timeline.place(item.time, arrival, nominal_s=nominal_s)
            if t is None:
                continue
            message = Message(
                kind="alive",
                anchor=self.timeline.anchor,
                place=None if feed is None else feed.place,
            )
            for shown in self._sampler.push(t, (item.picture, view)):
                frame, how = shown.picture
                picture = how.draw(frame, self._reformatter)
                spent_s = time.process_time()
                cost_ms, self._spent_s = 1000 * (spent_s - self._spent_s), spent_s
                write(
                    self._out,
                    replace(
                        message,
                        kind="picture",
                        slot=shown.slot,
                        count=shown.count,
                        cost_ms=cost_ms,
                        picture=picture,
                    ),
                )
                self._said_at = arrival
            if arrival - self._said_at >= _ALIVE_S:
                write(self._out, message)
                self._said_at = arrival


if __name__ == "__main__":
    with os.fdopen(int(sys.argv[1]), "wb", buffering=1 << 16) as messages:
        try:
            main(sys.stdin.buffer, messages)
        except BrokenPipeError:
            os._exit(0)  # nobody reads any more
