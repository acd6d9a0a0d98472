"""What the choice of cells does to a video: pictures, the share over time, a line per tubelet."""

from streamer.inspection.report import Summary, inspect

__all__ = ["Summary", "inspect"]
