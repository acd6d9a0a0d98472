"""The commands that talk to a running service, against one that is a function."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

import streamer.client
import streamer.commands.jobs
from streamer.adapters.clock import ManualClock
from streamer.cli import app
from streamer.client import Client
from streamer.commands.connection import job_ids
from streamer.events import Event
from streamer.tables import overview
from streamer.views import PoolView, Status, WorkerView

JOB: dict[str, Any] = {
    "id": "cam",
    "state": "running",
    "url": "http://example.com/[red]a[/red].mp4",
    "questions": [{"id": "q1", "prompt": "What moves?"}],
    "fps": 2.0,
    "lag_s": 1.54,
    "captions": 3,
    "t1": 6.0,
    "tokens": {"dense": 120, "kept": 30},
}
ANSWER: dict[str, Any] = {
    "text": "[red]Zwei[/red] Dinge.",
    "t0": 60.0,
    "t1": 120.0,
    "visual_tokens": 30,
    "dense_tokens": 120,
    "latency_ms": 1540.0,
}
SUBTITLES = "WEBVTT\n\n00:00.000 --> 00:02.000\nEin Ding fährt.\n\n".encode()
WORKERS: dict[str, Any] = {
    "fits": 30,
    "limit": 32,
    "active": 2,
    "pools": {
        "decode": {"min": 1, "max": 3, "workers": [{"name": "decode-1", "state": "ready"}]},
        "tokenize": {"min": 2, "max": 2, "workers": []},
    },
}


class Service:
    """Answers by method and path, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[httpx.Request] = []
        self.jobs = {"cam": JOB, "door": JOB | {"id": "door", "state": "ended", "lag_s": None}}
        self.events: list[Event] = []
        self.away = 0
        """How often it cannot say what became of a job."""
        self.end: dict[str, Any] | None = {"state": "ended"}
        """What the job is when its events have ended; None: it is gone."""

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        method, path = request.method, request.url.path.removeprefix("/v1")
        if path == "/workers":
            return httpx.Response(200, json=WORKERS)
        if (method, path) == ("PATCH", "/pools"):
            return httpx.Response(200, json={})
        if (method, path) == ("GET", "/jobs"):
            state = request.url.params.get("state")
            jobs = [job for job in self.jobs.values() if state in (None, job["state"])]
            return httpx.Response(200, json={"jobs": jobs, "next": None})
        if (method, path) == ("POST", "/jobs"):
            return httpx.Response(201, json=JOB)
        job_id, _, what = path.removeprefix("/jobs/").partition("/")
        if job_id not in self.jobs:
            return httpx.Response(404, json={"detail": f"there is no job {job_id}"})
        if what == "events":
            return self._events(job_id)
        if what == "ask":
            return httpx.Response(200, json=ANSWER)
        if what.startswith("captions."):
            return httpx.Response(200, content=SUBTITLES)
        if self.jobs[job_id]["state"] != "running" and self.away:
            self.away -= 1
            return httpx.Response(503, json={"detail": "Redis cannot be reached"})
        return httpx.Response(200, json=self.jobs[job_id])

    def body(self) -> Any:
        return json.loads(self.asked[-1].content)

    def _events(self, job_id: str) -> httpx.Response:
        if self.end is None:
            del self.jobs[job_id]
        else:
            self.jobs[job_id] = self.jobs[job_id] | self.end
        lines = [f"id: {e.id}\nevent: {e.event}\ndata: {e.to_json_line()}\n\n" for e in self.events]
        return httpx.Response(
            200,
            content="".join([*lines, "event: end\ndata: {}\n\n"]).encode(),
            headers={"Content-Type": "text/event-stream"},
        )


def event(chunk: int, n: int = 0, text: str = "Ein Ding fährt.") -> Event:
    return Event(
        id=f"{chunk}-{n}",
        event="caption",
        job="cam",
        chunk=chunk,
        t0=2.0 * chunk - 2,
        t1=2.0 * chunk,
        question=f"q{n + 1}",
        text=text,
        input_tokens=10,
        dense_tokens=40,
    )


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Service:
    service = Service()
    made = partial(Client, transport=httpx.MockTransport(service), clock=ManualClock())
    monkeypatch.setattr(streamer.client, "Client", made)
    for name in ("STREAMER_URL", "STREAMER_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    return service


@pytest.fixture
def call(service: Service) -> Callable[..., Result]:
    def invoke(*arguments: str, **environment: str) -> Result:
        result: Result = CliRunner().invoke(app, arguments, env=environment)
        assert isinstance(result.exception, SystemExit | None), result.exception
        return result

    return invoke


def test_submit_prints_the_id(call: Callable[..., Result], service: Service) -> None:
    result = call(
        *("submit", "http://example.com/a.mp4", "--question", "What?", "--question", "Who?"),
        *("--fps", "4", "--chunk-s", "1", "--pipeline", "[{name: rlt}]"),
        *("--idempotency-key", "mine", "--token", "secret", "--url", "http://elsewhere:9"),
    )
    assert (result.exit_code, result.stdout, result.stderr) == (0, "cam\n", "")
    [request] = service.asked
    assert request.url.host == "elsewhere"
    assert request.headers["Authorization"] == "Bearer secret"
    assert request.headers["Idempotency-Key"] == "mine"
    assert service.body() == {
        "source": {"url": "http://example.com/a.mp4"},
        "questions": [{"prompt": "What?"}, {"prompt": "Who?"}],
        "fps": 4.0,
        "chunk_s": 1.0,
        "pipeline": [{"name": "rlt"}],
    }


def test_submit_says_when_to_ask(call: Callable[..., Result], service: Service) -> None:
    given = ("submit", "rtsp://example.com/cam", "--when", "on_change", "--live")
    assert call(*given).exit_code == 0
    assert service.body() == {
        "source": {"url": "rtsp://example.com/cam", "live": True},
        "questions": [{"id": "default", "when": "on_change"}],
    }
    assert call(*given, "--question", "Who?").exit_code == 0
    assert service.body()["questions"] == [{"prompt": "Who?", "when": "on_change"}]
    assert call("submit", "http://example.com/a.mp4", "--when", "never").exit_code == 2


def test_ask_prints_the_answer_and_what_it_is_about(
    call: Callable[..., Result], service: Service
) -> None:
    result = call("ask", "cam", "How many?", "--from", "60", "--to", "120.5")
    assert (result.exit_code, result.stdout) == (0, "[red]Zwei[/red] Dinge.\n")
    assert result.stderr == "60.0 – 120.0 s, 30 of 120 tokens, 1.5 s\n"
    assert service.body() == {"prompt": "How many?", "t0": 60.0, "t1": 120.5}
    result = call("ask", "cam", "How many?", "--json")
    assert service.body() == {"prompt": "How many?"}
    assert json.loads(result.stdout)["visual_tokens"] == 30
    assert result.stderr == ""


def test_export_writes_a_file_or_stdout(
    call: Callable[..., Result], service: Service, tmp_path: Path
) -> None:
    assert call("export", "cam").stdout_bytes == SUBTITLES
    assert service.asked[-1].url.path == "/v1/jobs/cam/captions.vtt"
    out = tmp_path / "cam.srt"
    options = ("--from", "5", "--to", "9", "--question", "q1", "--out", str(out))
    assert call("export", "cam", "--format", "srt", *options).stdout == ""
    assert out.read_bytes() == SUBTITLES
    assert service.asked[-1].url.path == "/v1/jobs/cam/captions.srt"
    assert dict(service.asked[-1].url.params) == {"from": "5.0", "to": "9.0", "question": "q1"}
    again = call("export", "cam", "--out", str(out))
    assert (again.exit_code, "File exists" in again.stderr) == (1, True)
    assert out.read_bytes() == SUBTITLES
    other = tmp_path / "none.vtt"
    assert call("export", "none", "--out", str(other)).stderr == "streamer: there is no job none\n"
    assert not other.exists()


def test_jobs_that_suffer_say_so(call: Callable[..., Result], service: Service) -> None:
    service.jobs["cam"] = JOB | {"live": True, "connected": False, "source_error": "401"}
    service.jobs["door"] = JOB | {"id": "door", "live": True, "connected": True, "level": 2}
    shown = call("jobs").stdout
    assert "running, not connected" in shown
    assert ".mp4: 401" in shown
    assert "running, level 2" in shown


def test_the_environment_names_service_and_token(
    call: Callable[..., Result], service: Service
) -> None:
    call("jobs", STREAMER_URL="http://elsewhere:9", STREAMER_TOKEN="secret")
    [request] = service.asked
    assert (request.url.host, request.headers["Authorization"]) == ("elsewhere", "Bearer secret")


def test_a_file_is_named_by_its_whole_path(
    call: Callable[..., Result], service: Service, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.mp4").touch()
    monkeypatch.chdir(tmp_path)
    call("submit", "a.mp4")
    assert service.body() == {"source": {"url": str(tmp_path / "a.mp4")}}
    call("submit", "x" * 5000)
    assert service.body() == {"source": {"url": "x" * 5000}}


@pytest.mark.parametrize(
    ("end", "code", "sentence"),
    [
        ({"state": "ended"}, 0, None),
        ({"state": "failed", "error": "it broke"}, 1, "it broke"),
        ({"state": "ended", "error": "the source ended early"}, 1, "the source ended early"),
        ({"state": "failed"}, 1, "the job failed"),
        (None, 1, "job cam was deleted"),
    ],
)
@pytest.mark.parametrize("command", [("watch", "cam"), ("submit", "a", "--watch")])
def test_watch_follows_to_the_end(
    call: Callable[..., Result],
    service: Service,
    command: tuple[str, ...],
    end: dict[str, Any] | None,
    code: int,
    sentence: str | None,
) -> None:
    service.events, service.end = [event(1), event(2)], end
    result = call(*command, "--json")
    assert result.exit_code == code
    assert [json.loads(line)["id"] for line in result.stdout.splitlines()] == ["1-0", "2-0"]
    assert result.stderr == (f"streamer: {sentence}\n" if sentence else "")


def test_a_service_that_is_away_at_the_end_is_waited_for(
    call: Callable[..., Result], service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streamer.commands.jobs, "SYSTEM_CLOCK", ManualClock())
    service.events, service.away = [event(1)], 20
    assert call("watch", "cam").exit_code == 0
    service.jobs["cam"], service.away = JOB, 1000
    result = call("watch", "cam", "--json")
    assert (result.exit_code, result.stderr) == (1, "streamer: Redis cannot be reached\n")


def test_watch_for_people_names_the_question_where_there_are_two(
    call: Callable[..., Result], service: Service
) -> None:
    service.events = [event(1), event(1, 1, "Zwei.")]
    assert "fährt.  [10/40]" in call("watch", "cam").stdout
    service.jobs["cam"] = JOB | {"questions": [{"id": f"q{n}", "prompt": "?"} for n in (1, 2)]}
    result = call("watch", "cam")
    assert "q1: Ein Ding fährt." in result.stdout
    assert "q2: Zwei." in result.stdout
    assert "10 of 40 tokens (25 %)" in result.stderr  # a chunk's tokens count once


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (("watch", "gone"), "there is no job gone"),
        (("watch", "cam", "--after", "soon"), "event id 'soon' is not <chunk>-<n>, e.g. 12-0"),
        (("cancel", "gone"), "there is no job gone"),
        (("submit", "a", "--pipeline", "[{"), "--pipeline is not YAML"),
        (("submit", "a", "--pipeline", "rlt"), "--pipeline must be a list"),
        (("submit", "a", "--fps", "nan"), "cannot be written as JSON"),
        (("jobs", "--url", "localhost:8000"), "it looks like http://127.0.0.1:8000"),
        (("jobs", "--token", "a b"), "the token must be"),
        (("scale", "tokenize"), "'tokenize' is not POOL=N or POOL=MIN-MAX"),
        (("scale", "tokens=2"), "'tokens=2' is not POOL=N"),
        (("scale", "decode=-1"), "'decode=-1' is not POOL=N"),
        (("scale", "decode=1", "decode=2"), "decode is given twice"),
    ],
)
def test_a_mistake_is_one_sentence(
    call: Callable[..., Result], command: tuple[str, ...], sentence: str
) -> None:
    result = call(*command)
    assert (result.exit_code, result.stdout) == (1, "")
    [line] = result.stderr.splitlines()
    assert line.startswith("streamer: ")
    assert sentence in line


def test_jobs_is_a_table_or_json(call: Callable[..., Result]) -> None:
    shown = call("jobs").stdout.splitlines()
    assert shown[0].split() == ["job", "state", "lag", "at", "captions", "tokens", "video"]
    assert shown[1].split() == (
        [
            "cam",
            "running",
            "1.5",
            "s",
            "6",
            "s",
            "3",
            "25",
            "%",
            "http://example.com/[red]a[/red].mp4",
        ]
    )
    assert shown[2].split()[:3] == ["door", "ended", "6"]
    lines = call("jobs", "--json", "--state", "ended").stdout.splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["door"]
    assert call("jobs", "--state", "failed").stdout == "no jobs\n"


@pytest.mark.parametrize("command", ["cancel", "pause", "resume"])
def test_jobs_are_taken_one_by_one(
    call: Callable[..., Result], service: Service, command: str
) -> None:
    result = call(command, "cam", "gone", "door")
    said = {"cancel": "cancelled", "pause": "paused", "resume": "resumed"}[command]
    assert result.exit_code == 1
    assert result.stdout == f"cam {said}\ndoor {said}\n"
    assert result.stderr == "streamer: there is no job gone\n"
    assert len(service.asked) == 3


def test_scale(call: Callable[..., Result], service: Service) -> None:
    result = call("scale", "tokenize=2", "caption=1-4")
    assert (result.exit_code, result.stdout) == (0, "tokenize 2\ncaption 1 to 4\n")
    assert service.body() == {"tokenize": 2, "caption": {"min": 1, "max": 4}}


def test_status_once(call: Callable[..., Result], service: Service) -> None:
    shown = call("status").stdout  # no terminal: once
    assert "decode: 1 of 1 to 3" in shown
    assert "decode-1" in shown
    assert "tokenize: 0 of 2" in shown
    assert "2 of 32 jobs, room for 30 more" in shown
    assert "cam" in shown
    assert "door" not in shown
    assert call("status", "--once").stdout == shown
    [line] = call("status", "--json").stdout.splitlines()
    assert json.loads(line)["pools"]["decode"]["workers"][0]["name"] == "decode-1"


def test_a_worker_is_shown_with_what_it_does() -> None:
    busy = WorkerView(
        name="caption-1",
        state="ready",
        node="10.0.0.5",
        backlog=3,
        busy=0.256,
        rss_bytes=300 << 20,
        jobs=("cam", "door"),
    )
    broken = WorkerView(name="caption-2", error="model [x] is not there")
    status = Status(pools={"caption": PoolView(min=2, max=2, workers=(busy, broken))})
    console = Console(width=200)
    with console.capture() as captured:
        console.print(overview(status, []))
    lines = captured.get().splitlines()
    assert lines[2].split() == (
        ["caption-1", "ready", "10.0.0.5", "3", "26", "%", "300", "MiB", "cam,", "door"]
    )
    assert "model [x] is not there" in lines[3]


def test_a_shell_completes_the_ids_of_jobs(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Context:
        params: dict[str, str | None]

    context = Context()
    context.params = {"url": None, "token": None}
    assert job_ids(context, "") == ["cam", "door"]  # type: ignore[arg-type]  # all it looks at
    assert job_ids(context, "d") == ["door"]  # type: ignore[arg-type]  # all it looks at
    context.params = {"url": "nowhere", "token": None}
    assert job_ids(context, "") == []  # type: ignore[arg-type]  # all it looks at
