"""Server-sent events: bytes as they come from a connection become messages.

The parsing is that of the HTML standard, section 9.2.6, however the bytes were cut on the way.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass

from streamer.errors import WireError

LONGEST = 4 << 20
"""Most characters of one message that are held; a server that sends more is not one of ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message; `id` is the last id of the stream so far, whether or not this one brought it."""

    event: str
    data: str
    id: str


class MessageParser:
    """One connection's messages; what a broken connection left unfinished is not one."""

    def __init__(self, *, last_id: str = "") -> None:
        self.last_id = last_id
        """Of the last complete message: where the next connection begins."""
        self.retry_ms: int | None = None
        """How long the server asks to wait before the next connection, if it does."""
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")
        self._line = ""
        self._after_cr = False
        self._event = ""
        self._id = last_id
        self._data: list[str] = []
        self._length = 0

    def feed(self, chunk: bytes) -> Iterator[Message]:
        """The messages that are complete with this chunk.

        Raises WireError when one grows beyond all measure.
        """
        text = self._decoder.decode(chunk)
        if not text:
            return
        if self._after_cr:
            text = text.removeprefix("\n")  # of a CRLF that was cut in two
        self._after_cr = text.endswith("\r")
        *lines, self._line = re.split(r"\r\n|\r|\n", self._line + text)
        for line in lines:
            if line:
                self._take(line)
            elif message := self._complete():
                yield message
        self._measure(len(self._line))

    def _take(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._length += len(value) + 1
            self._measure(0)
            self._data.append(value)
        elif name == "event":
            self._event = value
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and re.fullmatch("[0-9]{1,9}", value):
            self.retry_ms = int(value)

    def _complete(self) -> Message | None:
        data, event = self._data, self._event
        self._data, self._event, self._length = [], "", 0
        self.last_id = self._id
        if not data:
            return None
        return Message(event=event or "message", data="\n".join(data), id=self.last_id)

    def _measure(self, more: int) -> None:
        if self._length + more > LONGEST:
            raise WireError(f"an event is longer than {LONGEST >> 20} MiB")
