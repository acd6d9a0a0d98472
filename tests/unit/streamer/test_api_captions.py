"""Exports: what was said, as JSON, WebVTT and SubRip."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from streamer.adapters.queue import Entry, Queue, Stream
from streamer.api.cues import LONGEST_S, Cue, cues, subrip, webvtt
from streamer.archive import archived_as
from streamer.errors import ArchiveError
from streamer.events import Event, EventKind, encode_chunk_events
from streamer.jobs import Question
from streamer.speech import Speech, encode_speech
from tests.unit.streamer.api_jobs import ALICE, BOB, TOKENS, Api, api, caption, finish, make_job

QUESTIONS = (Question(id="default", prompt="a"), Question(id="q1", prompt="b"))


def said(chunk: int, text: str | None, n: int = 0, **change: Any) -> Event:
    """A chunk's answer; None: as before."""
    event = caption("cam", chunk, n, text=text)
    return replace(
        event if text is not None else replace(event, event="unchanged", text=None), **change
    )


def gap(chunk: int, *, until: float | None = None, kind: EventKind = "gap") -> Event:
    """Nothing to be seen."""
    t1 = 2.0 * chunk if until is None else until
    return replace(said(chunk, ""), event=kind, text=None, question=None, reason="gone", t1=t1)


def texts(*events: Event) -> list[tuple[float, float, str, str]]:
    return [(cue.t0, cue.t1, cue.question, cue.text) for cue in cues(events)]


def test_a_cue_lasts_while_it_is_true() -> None:
    assert texts(said(1, "a"), said(2, None), said(3, "a"), said(4, "b")) == [
        (0.0, 6.0, "default", "a"),
        (6.0, 8.0, "default", "b"),
    ]


@pytest.mark.parametrize("kind", ["gap", "skipped"])
def test_a_gap_ends_every_cue_and_what_is_still_true_begins_another(kind: EventKind) -> None:
    still = replace(said(3, None), text="a")  # what it stands for
    assert texts(said(1, "a"), gap(2, kind=kind), still, said(4, None)) == [
        (0.0, 2.0, "default", "a"),
        (4.0, 8.0, "default", "a"),
    ]


def test_an_error_ends_the_cue_of_its_question() -> None:
    error = replace(said(2, ""), event="error", text=None, reason="x")
    assert texts(said(1, "a"), error, said(3, "a"), said(4, "a")) == [
        (0.0, 2.0, "default", "a"),
        (4.0, 8.0, "default", "a"),
    ]


def test_cues_of_several_questions_come_in_the_order_in_which_they_begin() -> None:
    events = [said(1, "a"), said(1, "x", 1), said(2, None), said(2, "y", 1), said(3, "b")]
    assert texts(*events) == [
        (0.0, 4.0, "default", "a"),
        (0.0, 2.0, "q1", "x"),
        (2.0, 4.0, "q1", "y"),
        (4.0, 6.0, "default", "b"),
    ]


def test_what_is_unchanged_for_hours_holds_little_back() -> None:
    # Given one question whose answer never changes, and one whose answer always does
    held = 0

    def hours() -> Iterator[Event]:
        nonlocal held
        for chunk in range(1, 3601):
            held += 1
            yield said(chunk, "still" if chunk == 1 else None)
            yield said(chunk, f"{chunk}", 1)

    starts = []
    for cue in cues(hours()):
        # When a cue is given, then not much more was read than the longest cue lasts
        starts.append(cue.t0)
        assert 2 * held - cue.t0 <= 2 * LONGEST_S
        assert cue.t1 - cue.t0 <= LONGEST_S
    assert starts == sorted(starts)
    assert len(starts) == 3600 + 7200 / LONGEST_S


def test_a_question_that_is_asked_no_more_holds_nothing_back() -> None:
    events = iter([said(1, "a"), said(1, "x", 1), *(said(n, f"{n}", 1) for n in range(2, 100))])
    found = cues(events)
    assert next(found).text == "a"
    assert next(found).text == "x"
    assert next(events).chunk < 6


def test_times_go_beyond_an_hour_and_texts_end_no_cue() -> None:
    cue = Cue(3599.9996, 360_000.25, "q1", "a & <b>\n\n --> c\r\n")
    assert "".join(webvtt([cue], named=True)) == (
        "WEBVTT\n\n01:00:00.000 --> 100:00:00.250\n<v q1>a &amp; &lt;b&gt;\n--&gt; c\n\n"
    )
    assert "".join(subrip([cue], named=True)) == (
        "1\n01:00:00,000 --> 100:00:00,250\nq1: a & <b>\n→ c\n\n"
    )


# Over HTTP


def chunk(events: Sequence[Event], known: dict[str, str] | None = None) -> Entry:
    """A chunk's entry as a captioner would write it; known: what was said before, by question."""
    known = {} if known is None else known
    known |= {event.question: event.text for event in events if event.question and event.text}
    speech = Speech(said={f"{question} 0badcafe": text for question, text in known.items()})
    told = [replace(event, id=f"{events[0].chunk}-{n}") for n, event in enumerate(events)]
    return Entry(events[0].chunk, encode_chunk_events(told) | {"speech": encode_speech(speech)})


def fill(queue: Queue, *chunks: Sequence[Event], job: str = "cam") -> None:
    known: dict[str, str] = {}
    for events in chunks:
        entry = chunk(events, known)
        queue.append(job, "events", entry.number, entry.fields)


def filled(**changes: Any) -> Api:
    """A job of five chunks."""
    here = api()
    make_job(here.queue, **changes)
    fill(here.queue, [said(1, "a")], [said(2, None)], [gap(3)], [said(4, "b")], [said(5, "c")])
    return here


def test_json_has_the_events_themselves() -> None:
    here = filled()
    answer = here.client.get("/v1/jobs/cam/captions.json")
    assert answer.headers["content-type"] == "application/json"
    exported = answer.json()
    assert exported["job"] == "cam"
    events = [Event(**event) for event in exported["captions"]]
    assert [(e.id, e.event) for e in events] == [
        ("1-0", "caption"),
        ("2-0", "unchanged"),
        ("3-0", "gap"),
        ("4-0", "caption"),
        ("5-0", "caption"),
    ]
    assert events[0].text == "a"


def test_subtitles() -> None:
    here = filled()
    vtt = here.client.get("/v1/jobs/cam/captions.vtt")
    assert vtt.headers["content-type"] == "text/vtt; charset=utf-8"
    assert 'filename="cam.vtt"' in vtt.headers["content-disposition"]
    assert vtt.text == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:04.000\na\n\n"
        "00:00:06.000 --> 00:00:08.000\nb\n\n00:00:08.000 --> 00:00:10.000\nc\n\n"
    )
    srt = here.client.get("/v1/jobs/cam/captions.srt")
    assert srt.headers["content-type"] == "application/x-subrip; charset=utf-8"
    assert srt.text.startswith("1\n00:00:00,000 --> 00:00:04,000\na\n\n2\n")


def test_a_span_is_cut_out() -> None:
    here = filled()
    span = {"from": 3, "to": 7}
    exported = here.client.get("/v1/jobs/cam/captions.json", params=span).json()
    assert [event["chunk"] for event in exported["captions"]] == [2, 3, 4]
    vtt = here.client.get("/v1/jobs/cam/captions.vtt", params=span).text
    # what was said before the span is still true in it
    assert (
        vtt == "WEBVTT\n\n00:00:03.000 --> 00:00:04.000\na\n\n00:00:06.000 --> 00:00:07.000\nb\n\n"
    )


def test_one_question_of_several() -> None:
    here = api()
    make_job(here.queue, questions=QUESTIONS)
    fill(here.queue, [said(1, "a"), said(1, "x", 1)], [gap(2)])
    both = here.client.get("/v1/jobs/cam/captions.vtt").text
    assert "<v default>a" in both
    assert "<v q1>x" in both
    one = here.client.get("/v1/jobs/cam/captions.vtt?question=q1").text
    assert "a" not in one
    assert "\nx\n" in one
    exported = here.client.get("/v1/jobs/cam/captions.json?question=q1").json()["captions"]
    assert [event["event"] for event in exported] == ["caption", "gap"]


def test_what_cannot_be_is_refused() -> None:
    here = filled()
    for query, status in (("from=-1", 422), ("to=x", 422), ("from=5&to=5", 400), ("from=inf", 422)):
        assert here.client.get(f"/v1/jobs/cam/captions.json?{query}").status_code == status, query
    assert here.client.get("/v1/jobs/cam/captions.ass").status_code == 422
    assert here.client.get("/v1/jobs/none/captions.json").status_code == 404


def test_captions_of_others_are_not_there() -> None:
    here = api(api={"tokens": TOKENS})
    make_job(here.queue, tenant="alice")
    assert here.as_(BOB).get("/v1/jobs/cam/captions.vtt").status_code == 404
    assert here.as_(ALICE).get("/v1/jobs/cam/captions.vtt").text == "WEBVTT\n\n"


class Counting:
    """How many entries were read at once."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self.most = 0
        self.read_entries = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._queue, name)

    def read(self, *given: Any, **options: Any) -> list[Entry]:
        found = self._queue.read(*given, **options)
        self.most = max(self.most, len(found))
        self.read_entries += len(found)
        return found


def test_long_jobs_are_read_in_pages_and_from_where_a_span_begins() -> None:
    here = api()
    make_job(here.queue)
    fill(here.queue, *([said(n, f"{n}")] for n in range(1, 2001)))
    counting = Counting(here.queue)
    there = Api(queue=counting)
    exported = there.client.get("/v1/jobs/cam/captions.json").json()["captions"]
    assert [event["chunk"] for event in exported] == list(range(1, 2001))
    assert counting.most < 100
    counting.read_entries = 0
    span = {"from": 3000, "to": 3010}
    exported = there.client.get("/v1/jobs/cam/captions.json", params=span).json()["captions"]
    assert [event["chunk"] for event in exported] == list(range(1501, 1506))
    assert counting.read_entries < 100


class Past:
    """What has left the queue of a job that was born when `make_job` says."""

    def __init__(self, *chunks: Sequence[Event]) -> None:
        known: dict[str, str] = {}
        self.entries = [chunk(events, known) for events in chunks]

    def events(self, name: str, after: int) -> Iterator[Entry]:
        assert name == archived_as("cam", 1_700_000_000.0)
        yield from [entry for entry in self.entries if entry.number > after]


def test_what_was_trimmed_is_told_or_comes_from_the_archive() -> None:
    here = filled()
    here.queue.trim("cam", "events", before=4)
    exported = here.client.get("/v1/jobs/cam/captions.json").json()["captions"]
    assert [(e["event"], e["t0"], e["t1"]) for e in exported][:1] == [("skipped", 0.0, 6.0)]
    # Given an archive that has some of it, and some that the queue has as well
    here = Api(queue=here.queue, archive=Past([said(1, "a")], [said(2, None)], [said(4, "b")]))
    exported = here.client.get("/v1/jobs/cam/captions.json").json()["captions"]
    assert [(e["event"], e["chunk"]) for e in exported] == [
        ("caption", 1),
        ("unchanged", 2),
        ("skipped", 3),
        ("caption", 4),
        ("caption", 5),
    ]


def test_a_job_of_which_nothing_is_kept_says_so() -> None:
    here = filled()
    here.queue.trim("cam", "events", before=6)
    finish(here.queue, "cam")
    exported = here.client.get("/v1/jobs/cam/captions.json").json()["captions"]
    assert [(e["event"], e["reason"]) for e in exported] == [("skipped", "trimmed")]
    assert json.dumps(exported)


def vtt(here: Api, **query: Any) -> str:
    return here.client.get("/v1/jobs/cam/captions.vtt", params=query).text


def test_what_is_still_true_behind_a_gap_is_told_and_from_a_span_s_beginning() -> None:
    here = api()
    make_job(here.queue)
    still = [[said(n, None)] for n in range(3, 401)]
    fill(
        here.queue, [said(1, "a")], [gap(2)], *still, [gap(401, kind="skipped")], [said(402, None)]
    )
    assert vtt(here).startswith("WEBVTT\n\n00:00:00.000 --> 00:00:02.000\na\n\n00:00:04.000 --> ")
    assert vtt(here).endswith("00:13:22.000 --> 00:13:24.000\na\n\n")
    # longer after it was said than anybody would look back
    assert vtt(here, **{"from": 790, "to": 792}) == (
        "WEBVTT\n\n00:13:10.000 --> 00:13:12.000\na\n\n"
    )
    # and where the chunk that said it has been trimmed
    here.queue.trim("cam", "events", before=300)
    assert "\na\n" in vtt(here)
    # In JSON `unchanged` is what it is
    exported = here.client.get("/v1/jobs/cam/captions.json").json()["captions"]
    assert {event["event"] for event in exported if "text" in event} == set()


class Trimming:
    """A queue whose janitor archives and trims while an export is read."""

    def __init__(self, queue: Queue, past: Past) -> None:
        self._queue = queue
        self._past = past
        self._before = iter((4, 7))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._queue, name)

    def first(self, job_id: str, stream: Stream) -> int:
        """Whenever somebody has looked, some more goes."""
        first = self._queue.first(job_id, stream)
        if before := next(self._before, 0):
            kept = self._queue.read("cam", "events", after=0)
            self._past.entries += [entry for entry in kept if entry.number < before]
            self._queue.trim("cam", "events", before=before)
        return first


def test_what_is_archived_while_it_is_read_is_not_missed() -> None:
    here = api()
    make_job(here.queue)
    fill(here.queue, *([said(n, f"{n}")] for n in range(1, 10)))
    past = Past([said(1, "1")])
    here.queue.trim("cam", "events", before=2)
    there = Api(queue=Trimming(here.queue, past), archive=past)
    exported = there.client.get("/v1/jobs/cam/captions.json?from=0").json()["captions"]
    assert [(event["event"], event["chunk"]) for event in exported] == [
        ("caption", n) for n in range(1, 10)
    ]


def test_all_of_a_job_may_be_in_the_archive() -> None:
    here = filled()
    here.queue.trim("cam", "events", before=6)
    finish(here.queue, "cam")
    here = Api(queue=here.queue, archive=Past(*([said(n, f"{n}")] for n in range(1, 6))))
    exported = here.client.get("/v1/jobs/cam/captions.json").json()["captions"]
    assert [event["chunk"] for event in exported] == [1, 2, 3, 4, 5]


def test_a_malformed_entry_of_the_archive_is_told_and_cuts_nothing_off() -> None:
    here = filled()
    here.queue.trim("cam", "events", before=4)
    past = Past([said(1, "a")], [said(2, "x")], [said(3, None)])
    past.entries[1].fields["events"] = b"["
    here = Api(queue=here.queue, archive=past)
    exported = here.client.get("/v1/jobs/cam/captions.json").json()["captions"]
    assert [(event["event"], event["chunk"]) for event in exported] == [
        ("caption", 1),
        ("error", 2),
        ("unchanged", 3),
        ("caption", 4),
        ("caption", 5),
    ]
    # and `unchanged` behind it has the text that it stands for, though nobody can read who said it
    assert "00:00:04.000 --> 00:00:06.000\nx\n" in vtt(here)


class Damaged(Past):
    """What can be read no further than its first entry."""

    def events(self, name: str, after: int) -> Iterator[Entry]:
        yield from list(super().events(name, after))[:1]
        raise ArchiveError("/srv/secret is damaged")


def test_a_damaged_archive_is_told_and_cuts_nothing_off() -> None:
    here = filled()
    here.queue.trim("cam", "events", before=4)
    here = Api(queue=here.queue, archive=Damaged([said(1, "a")], [said(2, "x")]))
    answer = here.client.get("/v1/jobs/cam/captions.json")
    exported = answer.json()["captions"]
    assert [(event["event"], event["chunk"]) for event in exported] == [
        ("caption", 1),
        ("error", 2),
        ("skipped", 3),
        ("caption", 4),
        ("caption", 5),
    ]
    assert "secret" not in answer.text


class Sparse:
    """A queue in which some numbers are missing, though those before them are kept."""

    def __init__(self, queue: Queue, missing: set[int]) -> None:
        self._queue = queue
        self._missing = missing

    def __getattr__(self, name: str) -> Any:
        return getattr(self._queue, name)

    def entry(self, job_id: str, stream: Stream, number: int) -> Entry | None:
        return None if number in self._missing else self._queue.entry(job_id, stream, number)

    def read(
        self, job_id: str, stream: Stream, *, after: int, count: int = 100, block_s: float = 0.0
    ) -> list[Entry]:
        found = self._queue.read(job_id, stream, after=after, count=1000)
        return [entry for entry in found if entry.number not in self._missing][:count]


def test_a_span_begins_where_it_should_though_numbers_are_missing() -> None:
    here = api()
    make_job(here.queue)
    fill(here.queue, *([said(n, f"{n}")] for n in range(1, 101)))
    there = Api(queue=Sparse(here.queue, set(range(40, 61))))
    for start, first in ((20, 11), (78, 60), (100, 60), (122, 62)):
        exported = there.client.get("/v1/jobs/cam/captions.json", params={"from": start}).json()
        assert exported["captions"][0]["chunk"] == first, start
