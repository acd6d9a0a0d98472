"""Logs are data on stderr: one event name, past tense, and its values.

decoder_fell_back   a source is read by PyAV instead of decord
source_connected    a live source sends pictures
source_lost         it does not any more, with the reason; it is connected to again
decoder_not_started the process for a live source could not be made; it is tried again
decoder_recycled    that process was old or large, and another one took its place
decoder_printed     what that process said on stderr
live_watch_failed   something nobody thought of, while a live source was looked after; it goes on
live_pictures_lost  something nobody thought of, while its pictures came; another process begins
child_started       a process under the supervisor; child_restarted: a new one for one that ended
child_ended         with its exit code (minus its signal), how long it lived, what it said last
child_silent        it did not answer for so long, and is killed
worker_started      by the controller, or by what keeps the controller itself
worker_stopped      one too many
worker_restarted    a new process for one that died
worker_crashed      it met something nobody thought of, and ends
worker_hung         it gave no sign of life, or worked too long on one chunk, and is killed
model_not_loaded    a worker cannot start its work
job_placed          on which workers
job_deleted         by the janitor, because its time was up
job_failed          for good, with the reason
job_crashed         a worker met something nobody thought of; the job is tried again
ask_crashed         a question met something nobody thought of; it is refused, captions go on
ask_failed          what a question is about could not be read just now; it is refused
batch_failed        many sessions could not be answered at once; each is answered alone
writer_replaced     another worker writes this job now
archive_failed      the archive cannot be written; `lost`: entries dropped for that
queue_lost          Redis did not answer for a while
record_malformed    what lies in Redis or the archive of a job cannot be read
api_started         it listens
request_crashed     the API met something nobody thought of
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from streamer.config import LogSettings


def configure(log: LogSettings) -> None:
    """Sends structured logs of this process to stderr."""
    rendered: list[structlog.types.Processor] = (
        [
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ]
        if log.format == "json"
        else [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            )
        ]
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *rendered,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(log.level),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
    )
