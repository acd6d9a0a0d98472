"""The outside systems, one per file, each behind a small Protocol."""
