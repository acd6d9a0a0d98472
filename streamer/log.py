"""Logs are data on stderr: one event name, past tense, and its values.

Events: decoder_fell_back (a source is read by PyAV instead of decord, with the reason).
"""

from __future__ import annotations

import sys

import structlog


def configure() -> None:
    """Sends structured logs of this process, warnings and worse, to stderr."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(30),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
    )
