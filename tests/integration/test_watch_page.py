"""The watch page in a real browser, on a connection that breaks."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from streamer.adapters.queue import Queue
from streamer.adapters.redis_client import connect
from streamer.adapters.redis_queue import RedisQueue
from streamer.adapters.redis_server import EmbeddedRedis
from streamer.api.serve import ApiServer
from streamer.events import Event, Totals, encode_chunk_events
from streamer.jobs import Question
from streamer.workers import Progress, SourceState, WorkerReport
from tests.integration.api_running import running, settings_for, until
from tests.integration.browser import Page, browser
from tests.integration.cutting_proxy import CuttingProxy
from tests.unit.streamer.api_jobs import ALICE, caption, finish, make_job, write

SHOWN = "[...document.querySelectorAll('#log li')].map((row) => row.dataset.id)"
EVIL = "<img src=x onerror='window.hacked=1'><script>window.hacked=1</script>"


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def queue(redis_server: EmbeddedRedis) -> Iterator[Queue]:
    with connect(redis_server.url) as client:
        client.flushall()
        yield RedisQueue(client)


@pytest.fixture
def api(redis_server: EmbeddedRedis, queue: Queue) -> Iterator[ApiServer]:
    with running(settings_for(redis_server.url, keep_alive_s=0.5)) as server:
        yield server


@pytest.fixture
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("chromium")) as page:
        yield page


def text(page: Page, name: str) -> str:
    return str(page.js(f"document.getElementById('{name}').textContent"))


def fill(page: Page, form: str, **fields: str) -> None:
    """Types into a form, and sends it."""
    for name, value in fields.items():
        page.js(f"document.getElementById('{name}').value = {value!r}")
    page.js(f"document.querySelector('#{form} button').click()")


def test_a_connection_that_breaks_again_and_again_shows_every_event_once(
    api: ApiServer, queue: Queue, page: Page
) -> None:
    # Given a job that is being captioned, and a way to it that breaks after 2 kB each time
    make_job(queue)

    def captioner() -> None:
        for chunk in range(1, 41):
            write(queue, "cam", chunk, events=2)
            time.sleep(0.05)
        finish(queue, "cam")

    writing = threading.Thread(target=captioner)
    with CuttingProxy(api.url, cut_after=4000) as proxy:
        # When a browser follows it
        page.open(f"{proxy.url}/?job=cam")
        writing.start()
        page.until("document.getElementById('link').className.includes('lost')")
        assert text(page, "link") == "reconnecting…"
        page.until("document.getElementById('link').textContent === 'complete'")
        writing.join()
        # Then it shows every event once, in order
        assert page.js(SHOWN) == [f"{chunk}-{n}" for chunk in range(1, 41) for n in range(2)]
        assert proxy.cuts >= 3
        page.until("document.getElementById('percent').textContent === '−75 %'")
        assert text(page, "saved") == "1,200 of 4,800 tokens reached the language model"
        assert text(page, "state") == "ended"
        assert page.js("source.readyState === EventSource.CLOSED")  # and it does not come back
        assert page.complaints == []


def test_a_service_that_was_away_is_come_back_to(
    redis_server: EmbeddedRedis, queue: Queue, page: Page
) -> None:
    make_job(queue)
    with running(settings_for(redis_server.url)) as api:
        port = int(api.url.rpartition(":")[2])
        page.open(f"{api.url}/?job=cam")
        write(queue, "cam", 1, 2)
        page.until(f"{SHOWN}.length === 2")
    page.until("document.getElementById('link').className.includes('lost')")
    with running(settings_for(redis_server.url, port=port)):
        write(queue, "cam", 3)
        finish(queue, "cam")
        page.until("document.getElementById('link').textContent === 'complete'")
    assert page.js(SHOWN) == ["1-0", "2-0", "3-0"]


def test_captions_are_text_and_every_kind_of_event_is_shown(
    api: ApiServer, queue: Queue, page: Page
) -> None:
    make_job(queue)
    queue.append("cam", "events", 1, encode_chunk_events([caption("cam", 1, text=EVIL)]))
    kinds = (
        ("unchanged", None),
        ("seen", None),
        ("gap", EVIL),
        ("skipped", "trimmed"),
        ("level", EVIL),
        ("error", EVIL),
    )
    for chunk, (kind, reason) in enumerate(kinds, 2):
        event = Event(
            id=f"{chunk}-0",
            event=kind,  # type: ignore[arg-type]  # one of the kinds
            job="cam",
            chunk=chunk,
            t0=2.0 * chunk - 2,
            t1=3600.0 + 2.0 * chunk,
            question="default" if kind == "unchanged" else None,
            reason=reason,
            level=2 if kind == "level" else None,
        )
        queue.append("cam", "events", chunk, encode_chunk_events([event]))
    queue.update_job("cam", {"error": EVIL})
    finish(queue, "cam", "failed")
    page.open(f"{api.url}/?job=cam")
    page.until("document.getElementById('link').textContent === 'complete'")
    rows = "[...document.querySelectorAll('#log li')]"
    assert page.js(f"{rows}.map((row) => row.className)") == [
        "caption",
        *(kind for kind, _ in kinds),
    ]
    assert page.js(f"{rows}.map((row) => row.querySelector('.text').textContent)") == [
        EVIL,
        "unchanged",
        "seen",
        f"no pictures for 1:00:02: {EVIL}",
        "skipped 1:00:02: trimmed",
        f"level 2: {EVIL}",
        EVIL,
    ]
    assert page.js(f"{rows}[1].querySelector('.time').textContent") == "00:02 – 1:00:04"
    assert text(page, "failed") == EVIL
    assert page.js("document.querySelectorAll('img, #job script').length") == 0
    assert page.js("window.hacked === undefined")
    assert page.complaints == []


def test_a_live_job_shows_whether_it_is_connected_and_how_far_behind(
    api: ApiServer, queue: Queue, page: Page
) -> None:
    # Given a live job that is thinned out, and whose last picture is some seconds old
    question = Question(id="default", prompt="What moves?", when="on_change")
    make_job(queue, questions=(question,))
    queue.update_job("cam", {"state": "running", "live": "1"})
    roster = api.service.roster

    def report(source: SourceState) -> None:
        for kind in ("decode", "tokenize"):
            level = 2 if kind == "tokenize" else 0
            at = {"cam": Progress(chunk=2, t1=4.0, source=source, level=level)}
            roster.report(WorkerReport(name=f"{kind}-1", kind=kind, boot="a", beat=1, jobs=at))

    def say(chunk: int, age_s: float) -> None:
        wall = datetime.fromtimestamp(time.time() - age_s, UTC).isoformat()
        event = replace(caption("cam", chunk), wall0=wall, wall1=wall)
        totals = Totals(chunks=chunk, captions=1, unchanged=4, asked=1, gaps=3)
        queue.append("cam", "events", chunk, encode_chunk_events([event], totals))

    report(SourceState(connected=True))
    say(1, 7.0)
    page.open(f"{api.url}/?job=cam")
    # Then it says so, and counts on
    page.until("document.querySelector('#live .good')?.textContent === 'connected'")
    page.until("/([7-9]|1\\d)\\.\\d s behind/.test(document.getElementById('live').textContent)")
    shown = text(page, "live")
    for part in ("level 2", "3 × interrupted", "asked 1 of 5 times"):
        assert part in shown
    assert text(page, "asked") == "What moves? (on change)"
    # When its source is lost
    report(SourceState(connected=False, reason=EVIL))
    say(2, 7.0)
    # Then it says why
    lost = f"reconnecting: {EVIL}"
    page.until(f"document.querySelector('#live .lost')?.textContent === {json.dumps(lost)}")
    assert "behind" not in text(page, "live")
    assert page.js("window.hacked === undefined")
    assert page.complaints == []


def test_a_job_is_submitted_and_another_one_picked(
    api: ApiServer, queue: Queue, page: Page
) -> None:
    make_job(queue, "older")
    write(queue, "older", 1)
    page.open(api.url)
    page.until("document.querySelectorAll('#jobs li').length === 1")
    fill(page, "submit", url="http://127.0.0.1/inside.mp4")
    page.until("document.getElementById('refused').textContent.includes('allow_networks')")
    fill(page, "submit", url="https://93.184.216.34/films/cat.mp4", prompt="What does it do?")
    page.until("document.querySelectorAll('#jobs li').length === 2")
    page.until("document.getElementById('name').textContent === 'cat.mp4'")
    assert text(page, "asked") == "What does it do?"
    assert text(page, "refused") == ""
    job_id = page.js("new URLSearchParams(location.search).get('job')")
    write(queue, job_id, 1, 2)
    page.until(f"{SHOWN}.length === 2")
    page.js("[...document.querySelectorAll('#jobs button')].at(-1).click()")
    page.until("document.getElementById('name').textContent === 'street.mp4'")
    page.until(f"{SHOWN}.join() === '1-0'")
    until(lambda: api.service.tail.followers == 1)  # the first one is followed no longer
    queue.delete_job("older")
    page.until("document.getElementById('state').textContent === 'deleted'")
    assert page.complaints == []


def test_a_service_with_tokens_asks_for_one(
    redis_server: EmbeddedRedis, queue: Queue, page: Page
) -> None:
    make_job(queue, tenant="alice")
    write(queue, "cam", 1)
    tokens = [{"name": "alice", "token": ALICE}]
    with running(settings_for(redis_server.url, tokens=tokens)) as api:
        page.open(f"{api.url}/?job=cam")
        page.until("!document.getElementById('token').hidden")
        fill(page, "token", secret="wrong")
        page.until("!document.getElementById('token').hidden")
        assert page.js(f"{SHOWN}.length") == 0
        fill(page, "token", secret=ALICE)
        page.until(f"{SHOWN}.length === 1")
        page.until("document.getElementById('token').hidden")
        fill(page, "submit", url="https://93.184.216.34/b.mp4")
        page.until("document.getElementById('name').textContent === 'b.mp4'")
        assert set(queue.active().values()) == {"alice"}
