"""Logs are data on stderr: one event name, past tense, and its values.

Events: decoder_fell_back (a source is read by PyAV instead of decord, with the reason).
"""

from __future__ import annotations

import sys

import structlog


def configure(*, verbose: bool = False) -> None:
    """Sends structured logs of this process to stderr; warnings and worse unless verbose."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(20 if verbose else 30),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
    )
