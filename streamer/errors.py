"""What can go wrong, grouped by what the reader would do about it.

StreamerError
├── ConfigError      a setting is wrong: fix the value the message names
├── SourceError      the video cannot be opened or decoded: check the URL or the file
├── ModelError       a checkpoint cannot be loaded: check the model folder
├── WireError        a stream entry is malformed, or of a schema this version cannot read
├── ArchiveError     an archive cannot be reached, written or read: check retention.archive
├── QueueError       Redis cannot be reached or refuses
│   ├── StreamGone       the job was deleted: stop writing
│   ├── WriterReplaced   another writer has gone past this one: stop writing
│   └── NoRoom           as many jobs as may be are running: wait for one to end
└── ServiceError     a running service refused a request, or cannot be reached
"""


class StreamerError(Exception):
    """Base of every error this project raises on purpose; its text is one sentence for a person."""


class ConfigError(StreamerError):
    """A setting is wrong; the message names its path, the value and what is allowed."""


class SourceError(StreamerError):
    """A video cannot be opened or decoded; the message names the URL without credentials."""


class ModelError(StreamerError):
    """A checkpoint folder or model name cannot be loaded."""


class WireError(StreamerError):
    """A stream entry is malformed; the message names the stream, the entry and the field."""


class ArchiveError(StreamerError):
    """An archive cannot be reached, or a file of it cannot be written or read."""


class QueueError(StreamerError):
    """Redis cannot be reached, or refused a command."""


class StreamGone(QueueError):
    """The stream does not exist any more: its job was deleted."""


class WriterReplaced(QueueError):
    """The stream has gone past this writer's entry, which is not in it: someone else writes now."""


class NoRoom(QueueError):
    """One more job would be too many."""


class ServiceError(StreamerError):
    """The service at a URL cannot be reached or refused; `status` is its HTTP status, if any."""

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status
