"""Takes docs/watch.png: the watch page with a job of a dozen captions.

Run: python -m tests.watch_picture [folder]; with a folder, dark and narrow ones go there too.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from streamer.adapters.redis_client import connect
from streamer.adapters.redis_queue import RedisQueue
from streamer.adapters.redis_server import EmbeddedRedis
from streamer.events import Event, Totals, encode_chunk_events
from streamer.jobs import Question
from tests.integration.api_running import running, settings_for
from tests.integration.browser import Page, browser
from tests.unit.streamer.api_jobs import finish, make_job

DOCS = Path(__file__).parents[1] / "docs" / "watch.png"
STILL = "The camera is still. "
SAID = (
    (STILL + "Nothing moves.", 60),
    (STILL + "Nothing moves.", 0),
    (STILL + "One thing moves. It is red, at the left, moving right.", 10),
    (STILL + "One thing moves. It is red, at the centre, moving right.", 14),
    (STILL + "Two things move. The largest is red, at the centre, moving right.", 20),
    (None, 0),
    (STILL + "One thing moves. It is blue, at the top right, moving up.", 20),
    ("The camera pans left.", 102),
    ("The camera pans left.", 96),
    ("Cut to a new scene.", 120),
    (STILL + "One thing moves. It is yellow, at the top right, moving down left.", 69),
    (STILL + "One thing moves. It is yellow, at the centre, moving down left.", 20),
)


def fill(queue: RedisQueue) -> None:
    """The jobs of the picture."""
    asked = (Question(id="default", prompt="What moves, and where to?"),)
    for n, (name, state) in enumerate((("harbour.mp4", "failed"), ("lobby.mp4", "ended"))):
        job_id = name.partition(".")[0]
        make_job(queue, job_id, url=f"https://example.com/{name}", created_at=1.7e9 + n)
        finish(queue, job_id, state)
    url = "https://example.com/cameras/crossing.mp4"
    job = make_job(queue, "crossing", url=url, questions=asked, created_at=1.7e9 + 9)
    queue.update_job(job.id, {"state": "running"})
    dense = kept = 0
    for chunk, (text, tokens) in enumerate(SAID, 1):
        event = Event(
            id=f"{chunk}-0",
            event="caption" if text else "unchanged",
            job=job.id,
            chunk=chunk,
            t0=2.0 * chunk - 2,
            t1=2.0 * chunk,
            question="default",
            text=text,
            input_tokens=tokens,
            dense_tokens=120,
        )
        dense, kept = dense + 120, kept + tokens
        totals = Totals(chunks=chunk, captions=chunk, tokens_dense=dense, tokens=kept)
        queue.append(job.id, "events", chunk, encode_chunk_events([event], totals))


def take(page: Page, folder: Path | None) -> None:
    DOCS.write_bytes(page.picture(width=1280, height=900))
    if folder is not None:
        (folder / "dark.png").write_bytes(page.picture(width=1280, height=900, dark=True))
        (folder / "phone.png").write_bytes(page.picture(width=390, height=844))


def main(folder: Path | None) -> None:
    with (
        tempfile.TemporaryDirectory() as data,
        tempfile.TemporaryDirectory() as profile,
        EmbeddedRedis(data) as server,
        connect(server.url) as client,
        running(settings_for(server.url)) as api,
    ):
        fill(RedisQueue(client))
        with browser(Path(profile)) as page:
            page.open(f"{api.url}/?job=crossing")
            page.until("document.querySelectorAll('#log li').length === 12")
            page.until("document.getElementById('percent').textContent.includes('%')")
            page.until("document.querySelectorAll('#jobs li').length === 3")
            page.js("new Promise((done) => setTimeout(done, 600))")  # the bar has moved
            take(page, folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
