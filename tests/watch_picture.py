"""Takes docs/watch.png: the watch page of a service that captions the clip of the demo, for real.

Run: python -m tests.watch_picture [folder]; with a folder, dark and narrow ones go there too.
"""

from __future__ import annotations

import json
import sys
import tempfile
import uuid
from pathlib import Path

from streamer import Client
from streamer.demo import write_clip
from tests.integration.browser import Page, browser
from tests.processes import running

DOCS = Path(__file__).parents[1] / "docs" / "watch.png"
CHUNKS = 17


def take(page: Page, folder: Path | None) -> None:
    DOCS.write_bytes(page.picture(width=1280, height=900))
    if folder is not None:
        (folder / "dark.png").write_bytes(page.picture(width=1280, height=900, dark=True))
        (folder / "phone.png").write_bytes(page.picture(width=390, height=844))


def main(folder: Path | None) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        clip = Path(scratch, "crossing.mp4")
        write_clip(clip)
        allowed = {"STREAMER__FETCH__ALLOW_PATHS": json.dumps([scratch])}
        serve = ("serve", "--port", "0", "--data", f"{scratch}/data")
        with running(uuid.uuid4().hex, *serve, environment=allowed) as process:
            assert process.stdout is not None
            with Client(process.stdout.readline().strip()) as client:
                job = client.submit(str(clip), questions="Describe what happens.")
                for _ in client.events(job.id):
                    pass
                with tempfile.TemporaryDirectory() as profile, browser(Path(profile)) as page:
                    page.open(f"{client.url.rstrip('/')}/?job={job.id}")
                    page.until(f"document.querySelectorAll('#log li').length === {CHUNKS}")
                    page.until("document.getElementById('percent').textContent.includes('%')")
                    page.js("new Promise((done) => setTimeout(done, 600))")  # the bar has moved
                    take(page, folder)
            process.terminate()
            process.wait(60)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
