"""Streamer: a video URL becomes a stream of captions, at the price of change."""

__version__ = "0.1.0"
