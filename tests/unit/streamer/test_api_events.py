"""A job's events as server-sent events: from the beginning, behind any of them, to the end."""

from __future__ import annotations

import json

import pytest

from streamer.api.reading import PAGE, Reading
from streamer.events import Event, encode_chunk_events
from streamer.sse import Message, MessageParser
from tests.unit.streamer.api_jobs import Api, api, caption, finish, make_job, write

CHUNK_S = 2.0


def told(body: bytes) -> list[Message]:
    """The messages of a stream that has ended."""
    return list(MessageParser().feed(body))


def ids(messages: list[Message]) -> list[str]:
    return [json.loads(m.data)["id"] for m in messages if m.event not in ("state", "end")]


def ended_job(*chunks: int, events: int = 1) -> Api:
    """An API with the finished job `cam`."""
    here = api()
    make_job(here.queue)
    write(here.queue, "cam", *chunks, events=events)
    finish(here.queue, "cam")
    return here


def test_a_finished_job_is_told_from_beginning_to_end() -> None:
    here = ended_job(1, 2, events=2)
    answer = here.client.get("/v1/jobs/cam/events")
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-accel-buffering"] == "no"
    assert answer.text.startswith("retry: 1000\n\n")
    messages = told(answer.content)
    assert [m.event for m in messages] == ["state", *["caption"] * 4, "end"]
    assert ids(messages) == ["1-0", "1-1", "2-0", "2-1"]
    assert [m.id for m in messages] == ["", "1-0", "1-1", "2-0", "2-1", "2-1"]
    for message in (messages[0], messages[-1]):
        assert json.loads(message.data) == {"job": "cam", "state": "ended", "error": None}
    assert messages[1].data == caption("cam", 1).to_json_line()


@pytest.mark.parametrize("by", ["header", "query", "both"])
def test_a_subscriber_goes_on_behind_the_last_event_it_has(by: str) -> None:
    here = ended_job(1, 2, 3, events=2)
    query = {"header": "", "query": "?after=2-0", "both": "?after=3-1"}[by]
    headers = {} if by == "query" else {"Last-Event-ID": "2-0"}
    answer = here.client.get(f"/v1/jobs/cam/events{query}", headers=headers)
    assert ids(told(answer.content)) == ["2-1", "3-0", "3-1"]


def test_one_who_has_the_last_event_of_a_finished_job_need_not_come_again() -> None:
    here = ended_job(1, 2, events=2)
    for last in ("2-1", "2-5", "9-0"):
        answer = here.client.get("/v1/jobs/cam/events", headers={"Last-Event-ID": last})
        assert (answer.status_code, answer.content) == (204, b"")
    answer = here.client.get("/v1/jobs/cam/events?after=2-1")  # asked on purpose: told again
    assert [m.event for m in told(answer.content)] == ["state", "end"]


@pytest.mark.parametrize("last", ["x", "1", "0-0", "1-", "-1-0", "01-0", "1-0-0", "9" * 20 + "-0"])
def test_a_malformed_id_is_refused(last: str) -> None:
    here = ended_job(1)
    for answer in (
        here.client.get("/v1/jobs/cam/events", headers={"Last-Event-ID": last}),
        here.client.get("/v1/jobs/cam/events", params={"after": last}),
    ):
        assert answer.status_code == 400
        assert answer.headers["content-type"] == "application/problem+json"
        assert "is not <chunk>-<n>" in answer.json()["detail"]


def test_an_unknown_job_has_no_events() -> None:
    assert api().client.get("/v1/jobs/none/events").status_code == 404


def test_why_a_job_failed_is_told() -> None:
    here = api()
    make_job(here.queue)
    here.queue.update_job("cam", {"error": "the server answered 404"})
    finish(here.queue, "cam", "failed")
    messages = told(here.client.get("/v1/jobs/cam/events").content)
    assert [m.event for m in messages] == ["state", "end"]
    assert json.loads(messages[-1].data) == {
        "job": "cam",
        "state": "failed",
        "error": "the server answered 404",
    }


def test_more_than_a_page_comes_whole() -> None:
    here = ended_job(*range(1, 3 * PAGE + 1))
    messages = told(here.client.get("/v1/jobs/cam/events").content)
    assert ids(messages) == [f"{n}-0" for n in range(1, 3 * PAGE + 1)]


def test_text_is_data_whatever_it_holds() -> None:
    here = api()
    make_job(here.queue)
    text = "a\nb\r\nevent: end\u2028 <img src=x> ü"
    here.queue.append("cam", "events", 1, encode_chunk_events([caption("cam", 1, text=text)]))
    finish(here.queue, "cam")
    messages = told(here.client.get("/v1/jobs/cam/events").content)
    assert [m.event for m in messages] == ["state", "caption", "end"]
    assert json.loads(messages[1].data)["text"] == text


# What was trimmed


def test_what_was_trimmed_is_one_skipped_event_that_can_be_resumed_behind() -> None:
    here = ended_job(1, 2, 3, 4, 5)
    here.queue.trim("cam", "events", before=4)
    messages = told(here.client.get("/v1/jobs/cam/events").content)
    assert ids(messages) == ["3-0", "4-0", "5-0"]
    assert json.loads(messages[1].data) == {
        "id": "3-0",
        "event": "skipped",
        "job": "cam",
        "chunk": 3,
        "t0": 0.0,
        "t1": 6.0,
        "reason": "trimmed",
    }
    for last, then in (("1-0", ["3-0", "4-0", "5-0"]), ("3-0", ["4-0", "5-0"]), ("4-0", ["5-0"])):
        answer = here.client.get("/v1/jobs/cam/events", headers={"Last-Event-ID": last})
        assert ids(told(answer.content)) == then
    for last in ("2-0", "3-0", "3-7"):  # whoever has a part of chunk 3 is told nothing of it
        answer = here.client.get("/v1/jobs/cam/events", headers={"Last-Event-ID": last})
        assert ids(told(answer.content))[0] == ("3-0" if last == "2-0" else "4-0")


def test_a_trimmed_end_is_told_too() -> None:
    here = ended_job(1, 2, 3)
    here.queue.trim("cam", "events", before=9)
    answer = here.client.get("/v1/jobs/cam/events", headers={"Last-Event-ID": "1-0"})
    messages = told(answer.content)
    assert [m.event for m in messages] == ["state", "skipped", "end"]
    assert json.loads(messages[1].data)["id"] == "3-0"
    assert (json.loads(messages[1].data)["t0"], json.loads(messages[1].data)["t1"]) == (2.0, 6.0)
    last = here.client.get("/v1/jobs/cam/events", headers={"Last-Event-ID": "3-0"})
    assert last.status_code == 204


def test_a_slow_reader_is_told_what_was_trimmed_meanwhile() -> None:
    here = api()
    make_job(here.queue)
    write(here.queue, "cam", 1, 2)
    reading = Reading(here.queue, "cam", behind=(0, 0), chunk_s=CHUNK_S)
    assert [event.id for event in reading.next(False)] == ["1-0", "2-0"]
    write(here.queue, "cam", 3, 4, 5)
    here.queue.trim("cam", "events", before=5)
    skipped, kept = reading.next(False)
    assert (skipped.id, skipped.event, skipped.t0, skipped.t1) == ("4-0", "skipped", 4.0, 8.0)
    assert kept.id == "5-0"
    assert reading.next(False) == []


def test_an_entry_that_cannot_be_read_is_an_error_event_among_the_others() -> None:
    here = api()
    make_job(here.queue)
    write(here.queue, "cam", 1)
    here.queue.append("cam", "events", 2, {"schema": b"99", "events": b"[]"})
    write(here.queue, "cam", 3)
    finish(here.queue, "cam")
    messages = told(here.client.get("/v1/jobs/cam/events").content)
    assert [m.event for m in messages] == ["state", "caption", "error", "caption", "end"]
    error = Event(**json.loads(messages[2].data))
    assert (error.id, error.t0) == ("2-0", 2.0)
    assert "upgrade the reader" in (error.reason or "")
