"""The command line: what is wrong is refused in one sentence, before anything is started."""

from __future__ import annotations

import io
import json
import re
import shlex
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
import structlog
from typer.testing import CliRunner, Result

import streamer.actors.keeper
import streamer.api.serve
import streamer.local
import streamer.log
import streamer.service
import streamer.sources
from streamer import __version__
from streamer.cli import app
from streamer.config import Settings
from streamer.errors import StreamerError
from streamer.events import Event
from streamer.jobs import JobState, JobStatus
from streamer.screen import DIM, RESET, Screen
from tests.cli_page import PATH, commands, page, paragraphs
from tests.clips import render, sound_only


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip, what is none, and what passes for a checkpoint until it is loaded."""
    folder = tmp_path_factory.mktemp("cli")
    render(folder / "clip.mp4", 20)
    sound_only(folder / "sound.mp4")
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("This is not a video.\n" * 40)
    (folder / "keys.yaml").write_text("on: 1\n")
    (folder / "torn.yaml").write_text("source: [\n")
    (folder / "list.yaml").write_text("- source\n")
    (folder / "binary.yaml").write_bytes(b"\xff\xfe\x00\x01")
    (folder / "typo.yaml").write_text("sorce: {fps: 2}\n")
    (folder / "fps.yaml").write_text("source: {fps: fast}\n")
    for name in ("model", "no_weights", "no_config"):
        (folder / name).mkdir()
        if name != "no_config":
            (folder / name / "config.json").write_text('{"model_type": "qwen3_vl"}')
        if name != "no_weights":
            (folder / name / "model.safetensors").touch()
    return folder


@pytest.fixture
def call(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs a command in the folder; a run that would start anything is a failure of the test."""
    monkeypatch.chdir(folder)

    def started(*_: object, **__: object) -> None:
        raise AssertionError("something was started")

    monkeypatch.setattr(streamer.local, "LocalRun", started)

    def invoke(*arguments: str) -> Result:
        result: Result = CliRunner().invoke(app, arguments)
        return result

    return invoke


def sentence(result: Result, code: int = 1) -> str:
    """The one line on stderr."""
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == code
    assert result.stdout == ""
    [line] = result.stderr.splitlines()
    assert line.startswith("streamer: ")
    assert not set("╭│╰") & set(line)
    return line.removeprefix("streamer: ")


CLIP = ("clip.mp4", "--model", "model")

REFUSED: dict[str, tuple[tuple[str, ...], str]] = {
    "missing_file": (("none.mp4",), "none.mp4: cannot be opened"),
    "name_like_an_emoji": (("x:bomb:.mp4",), "x:bomb:.mp4: cannot be opened"),
    "name_like_markup": (("[red]x[/red].mp4",), "[red]x[/red].mp4: cannot be opened"),
    "name_like_a_home": (("~no-such-user.mp4",), "~no-such-user.mp4: cannot be opened"),
    "directory": (("model",), "is a folder"),
    "empty_file": (("empty.mp4",), "empty.mp4: the file is empty"),
    "text_named_mp4": (("text.mp4",), "text.mp4: no readable video header"),
    "audio_only": (("sound.mp4",), "sound.mp4: holds audio but no video"),
    "scheme": (("gopher://user:secret@cam/1",), "gopher://cam/1: 'gopher' is not supported"),
    "device": (("/dev/null",), "/dev/null: is not a regular file"),
    "nan": (("--pipeline", "[{name: rlt, threshold: .nan}]"), "pipeline[0]: rlt.threshold: nan"),
    "infinity": (("--pipeline", "[{name: rlt, threshold: .inf}]"), "pipeline[0]: rlt.threshold"),
    "keep": (("--pipeline", "[{name: rlt}, {name: tome, keep: 2}]"), "pipeline[1]: tome.keep: 2"),
    "operator": (("--pipeline", "[{name: rtl}]"), "pipeline[0]: operator 'rtl' does not exist"),
    "parameter": (("--pipeline", "[{name: rlt, treshold: 1}]"), "treshold"),
    "order": (("--pipeline", "[{name: tome}, {name: rlt}]"), "pipeline[1]: rlt"),
    "no_name": (("--pipeline", "[{threshold: 1}]"), "pipeline[0]: an entry needs a name"),
    "torn_yaml": (("--pipeline", "[{"), "--pipeline is not YAML"),
    "no_list": (("--pipeline", "rlt"), "pipeline"),
    "a_mapping": (("--pipeline", "{name: rlt}"), "pipeline"),
    "empty_pipeline": (("--pipeline", ""), "pipeline"),
    "names_only": (("--pipeline", "[rlt]"), "pipeline[0]: 'rlt'"),
    "less_than_a_frame": (("--fps", "0.25", "--chunk-s", "2"), "is 0.5 frames a chunk"),
    "broken_frames": (("--fps", "2", "--chunk-s", "1.25"), "is 2.5 frames a chunk"),
    "nan_fps": (("--fps", "nan"), "source.fps: nan"),
    "zero_fps": (("--fps", "0"), "source.fps: 0.0"),
    "negative_chunk": (("--chunk-s", "-1"), "source.chunk_s: -1.0"),
    "no_question": (("--question", "  "), "question: '  '"),
    "port": (("--redis-port", "70000"), "queue.port: 70000"),
    "no_model": (("--model", "./none"), "model folder none does not exist"),
    "no_such_home": (("--model", "~no-such-user/m"), "model folder ~no-such-user/m does not exist"),
    "no_config": (("--model", "no_config"), "model folder no_config has no config.json"),
    "no_weights": (("--model", "no_weights"), "model folder no_weights has no weights"),
    "config_missing": (("--config", "none.yaml"), "none.yaml cannot be read: No such file"),
    "config_folder": (("--config", "model"), "model cannot be read: Is a directory"),
    "config_torn": (("--config", "torn.yaml"), "torn.yaml is not YAML"),
    "config_binary": (("--config", "binary.yaml"), "binary.yaml is not YAML"),
    "config_list": (("--config", "list.yaml"), "list.yaml must hold a mapping"),
    "config_keys": (("--config", "keys.yaml"), "keys.yaml: True: there is no such setting"),
    "config_typo": (("--config", "typo.yaml"), "typo.yaml: sorce: there is no such setting"),
    "config_value": (("--config", "fps.yaml"), "fps.yaml: source.fps: 'fast' is not allowed"),
}


@pytest.mark.parametrize(("given", "expected"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_work_is_refused_in_one_sentence(
    call: Callable[..., Result], given: tuple[str, ...], expected: str
) -> None:
    option = given[0].startswith("--")
    said = sentence(call("caption", *(CLIP if option else ("--model", "model")), *given))
    assert expected in said
    assert "secret" not in said


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("STREAMER__SOURCE__FPS", "fast", "source.fps: 'fast' is not allowed"),
        ("STREAMER__PIPELINE", "[{", "pipeline"),
        ("STREAMER__SOURCE", "fast", "source"),
    ],
)
def test_a_bad_environment_is_refused_in_one_sentence(
    call: Callable[..., Result],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    value: str,
    expected: str,
) -> None:
    monkeypatch.setenv(name, value)
    assert expected in sentence(call("caption", *CLIP))


def test_a_server_that_has_no_such_video(call: Callable[..., Result]) -> None:
    class Nothing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Nothing) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/none.mp4"
        result = call("caption", url, "--model", "model")
        server.shutdown()
        thread.join()
    said = sentence(result)
    assert said.startswith(f"{url}: the server answered ")
    assert "404" in said


@pytest.mark.parametrize(
    "arguments",
    [
        ("caption",),
        ("caption", *CLIP, "--fps", "x"),
        ("caption", "--nope"),
        ("watch",),
        ("submit",),
        ("jobs", "--state", "asleep"),
        ("serve", "--port", "http"),
        ("sing",),
    ],
)
def test_wrong_usage_is_told_by_exit_code_2(
    call: Callable[..., Result], arguments: tuple[str, ...]
) -> None:
    result = call(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Usage" in result.stderr
    assert "Traceback" not in result.stderr


def test_the_version_is_printed(call: Callable[..., Result]) -> None:
    result = call("--version")
    assert (result.exit_code, result.stdout) == (0, f"streamer {__version__}\n")


def test_every_command_and_option_says_what_it_is_for() -> None:
    for name, command in commands().items():
        *told, example = paragraphs(command)
        assert len(told[0].split()) > 4, name
        assert re.match(rf"Example: ([A-Z_]+=\S+ )?streamer {name}\b", example), name
        for parameter in command.params:
            assert len((getattr(parameter, "help", "") or "").split()) > 1, (name, parameter.name)


def test_every_example_is_a_command_line_that_is_understood() -> None:
    for name, command in commands().items():
        _, _, arguments = paragraphs(command)[-1].partition(f"streamer {name}")
        command.make_context(name, shlex.split(arguments))


@pytest.mark.parametrize("name", commands())
def test_help_shows_the_description(call: Callable[..., Result], name: str) -> None:
    result = call(name, "--help")
    assert result.exit_code == 0
    first = paragraphs(commands()[name])[0]
    shown = " ".join(re.sub("[│╭╮╰╯─]", "", click.unstyle(result.stdout)).split())
    assert first in shown
    assert "Example: " in shown


def test_the_page_of_commands_is_fresh() -> None:
    assert PATH.read_text(encoding="utf-8") == page(), "run `python -m tests.cli_page`"


# A service


@pytest.mark.parametrize("command", ["worker", "api"])
def test_one_side_of_a_service_needs_the_queue_of_both(
    call: Callable[..., Result], command: str
) -> None:
    assert sentence(call(command)).startswith("queue.url: the ")


def test_each_side_gets_its_settings(
    call: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMER__QUEUE__URL", "redis://10.0.0.5:6379/0")
    seen: list[Settings] = []
    monkeypatch.setattr(streamer.actors.keeper, "keep", seen.append)
    monkeypatch.setattr(streamer.api.serve, "serve_api", seen.append)
    assert call("worker", "--address", "auto").exit_code == 0
    assert call("api", "--host", "0.0.0.0", "--port", "0").exit_code == 0
    assert [settings.queue.url for settings in seen] == ["redis://10.0.0.5:6379/0"] * 2
    assert seen[0].ray.address == "auto"
    assert (seen[1].api.host, seen[1].api.port) == ("0.0.0.0", 0)


def test_serve_runs_all_of_it(
    call: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("api: {port: 1}\nlog: {format: json}\n")
    seen: list[tuple[Settings, Path | None]] = []

    def serve(settings: Settings, path: Path | None, *, ready: Callable[[str], None]) -> None:
        seen.append((settings, path))
        structlog.get_logger().info("child_started", child="api")
        ready("http://127.0.0.1:7000")

    monkeypatch.setattr(streamer.service, "serve", serve)
    result = call(
        *("serve", "--config", str(config), "--host", "localhost", "--port", "7000"),
        *("--data", "here", "--ray-address", "head:6379"),
    )
    assert (result.exit_code, result.stdout) == (0, "http://127.0.0.1:7000\n")
    [(settings, path)] = seen
    assert path == config
    assert (settings.api.host, settings.api.port) == ("localhost", 7000)
    assert (settings.queue.folder, settings.ray.address) == (Path("here"), "head:6379")
    logged = json.loads(result.stderr.splitlines()[-1])
    assert (logged["event"], logged["level"], logged["child"]) == ("child_started", "info", "api")


def test_a_port_that_is_taken_is_refused_before_anything_starts(
    call: Callable[..., Result], tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = call("serve", "--port", str(port), "--data", str(tmp_path / "data"))
    assert result.exit_code == 1
    assert f"streamer: api: port {port} of 127.0.0.1 cannot be had" in result.stderr
    assert not (tmp_path / "data").exists()


def test_every_event_of_the_log_is_listed() -> None:
    root = Path(streamer.__file__).parent
    said = {
        name
        for file in root.rglob("*.py")
        for name in re.findall(
            r"log\.(?:critical|exception|info|warning|error|debug)\(\s*\"(\w+)\"", file.read_text()
        )
    }
    listed = set(re.findall(r"\b[a-z]+_[a-z_]+\b", streamer.log.__doc__ or ""))
    assert said | {"child_started", "child_restarted"} == listed


# What a run that goes well, or not, looks like from outside. Everything below runs on a LocalRun
# that has its events already.


def caption(chunk: int, **more: Any) -> Event:
    known: dict[str, Any] = {
        "id": f"{chunk}-0",
        "event": "caption",
        "job": "cam",
        "chunk": chunk,
        "t0": 2.0 * chunk - 2,
        "t1": 2.0 * chunk,
        "question": "default",
        "text": "Ein rotes Ding\nfährt 😀 [red]nach[/red] links :bomb:.",
        "input_tokens": 10,
        "dense_tokens": 40,
        "chunk_latency_ms": 120.0,
    }
    return Event(**(known | more))


def other(chunk: int, event: Any, reason: str | None) -> Event:
    return Event(
        id=f"{chunk}-0", event=event, job="cam", chunk=chunk, t0=0.0, t1=2.0, reason=reason
    )


GAP = other(2, "gap", "the source has no pictures here")
UNCHANGED = Event(
    id="3-0", event="unchanged", job="cam", chunk=3, t0=4.0, t1=6.0, question="default"
)


@pytest.fixture
def ran(
    call: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., SimpleNamespace]:
    """Runs `caption` on a LocalRun that has these events, then this error or exception."""

    def run(
        events: list[Event],
        *arguments: str,
        command: tuple[str, ...] = ("caption", *CLIP),
        error: str | None = None,
        dies: Any = None,
    ) -> SimpleNamespace:
        seen = SimpleNamespace(closed=False)

        class FakeRun:
            def __init__(
                self, url: str, settings: Settings, *, told: Callable[[str], None], when: str
            ) -> None:
                seen.url, seen.settings, seen.when, self.told = url, settings, when, told

            def __enter__(self) -> FakeRun:
                self.told("starting")
                sys.stdout.write("what Ray prints\n")
                return self

            def __exit__(self, *_: object) -> None:
                seen.closed = True

            def events(self) -> Iterator[Event]:
                yield from events
                if dies is not None:
                    raise dies

            def status(self) -> JobStatus:
                state: JobState = "failed" if error else "ended"
                return JobStatus(state=state, last_chunk=len(events), error=error)

        monkeypatch.setattr(streamer.local, "LocalRun", FakeRun)
        seen.result = call(*command, *arguments)
        assert seen.closed
        return seen

    return run


def test_json_is_one_line_per_event_and_nothing_else(
    ran: Callable[..., SimpleNamespace],
) -> None:
    events = [caption(1), GAP, UNCHANGED, caption(4, text="")]
    result = ran(events, "--json").result
    assert result.exit_code == 0
    assert result.stdout == "".join(event.to_json_line() + "\n" for event in events)
    assert [json.loads(line)["id"] for line in result.stdout.splitlines()] == [
        *("1-0", "2-0", "3-0", "4-0")
    ]
    assert result.stderr == ""


def test_for_people_there_is_a_line_per_event_and_a_sum(
    ran: Callable[..., SimpleNamespace],
) -> None:
    result = ran([caption(1), GAP, UNCHANGED, caption(4)]).result
    assert result.exit_code == 0
    assert re.search(r"^ *0\.0 – +2\.0 s  Ein rotes Ding$", result.stdout, re.MULTILINE)
    assert "[red]nach[/red] links :bomb:.  [10/40]" in result.stdout
    assert "(gap of 2.0 s: the source has no pictures here)" in result.stdout
    assert "(unchanged)" in result.stdout
    assert "None" not in result.stdout
    assert "Ray" not in result.stdout
    assert "4 events for 8 s of video" in result.stderr
    assert "20 of 80 tokens (25 %)" in result.stderr


def test_a_live_source_is_told_by_the_clock_and_with_what_it_suffers(
    ran: Callable[..., SimpleNamespace], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    wall = {"wall0": "2026-01-01T10:00:00Z", "wall1": "2026-01-01T10:00:02.500Z"}
    level = Event(
        id="2-1", event="level", job="cam", chunk=2, t0=2.0, t1=4.0, reason="7.1 s behind", level=2
    )
    skipped = replace(other(3, "skipped", "nobody took it in time"), t1=31.5)
    events = [caption(1, text="A car.", **wall), level, skipped, other(4, "seen", None)]
    lines = ran(events).result.stdout.splitlines()
    assert lines[0].endswith("10:00:02  A car.  [10/40]")
    assert lines[1].endswith("(level 2: 7.1 s behind)")
    assert lines[2].endswith("(skipped 31.5 s: nobody took it in time)")
    assert lines[3].endswith("(seen)")


def test_what_says_nothing_new_is_dimmed_on_a_terminal() -> None:
    shown = io.StringIO()
    with Screen(json=False, fps=2.0) as screen:
        screen.stdout, screen.dims = shown, True
        for event in (caption(1, text="A car."), UNCHANGED, GAP):
            screen.show(event)
    first, unchanged, gap = shown.getvalue().splitlines()
    assert DIM not in first + gap
    assert unchanged.startswith(DIM)
    assert unchanged.endswith(RESET)


def test_the_live_line_tells_how_old_the_newest_picture_is() -> None:
    screen = Screen(json=False, fps=2.0)
    wall = datetime.fromtimestamp(time.time() - 40, UTC).isoformat()
    event = caption(1, wall0=wall, wall1=wall, level=2)
    screen._count(event)
    assert re.search(r"lag 4\d\.\d s · level 2 · tokens 10 / 40", screen._live(event))


def test_a_live_source_is_not_opened_at_the_border(
    ran: Callable[..., SimpleNamespace], monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(*_: object, **__: object) -> None:
        raise AssertionError("it was opened")

    monkeypatch.setattr(streamer.sources, "open_source", opened)
    command = ("caption", "rtsp://127.0.0.1:9/cam", *CLIP[1:])
    seen = ran([caption(1)], "--when", "on_change", command=command, dies=KeyboardInterrupt())
    assert (seen.url, seen.when) == ("rtsp://127.0.0.1:9/cam", "on_change")
    assert seen.result.exit_code == 130
    assert "1 events for 2 s of video" in seen.result.stderr
    seen = ran([caption(1)], "--live", command=("caption", "http://127.0.0.1:9/v", *CLIP[1:]))
    assert seen.settings.source.live is True


@pytest.mark.parametrize("arguments", [(), ("--json",)], ids=["people", "json"])
@pytest.mark.parametrize(
    ("events", "error", "code"),
    [
        ([caption(1)], None, 0),
        ([GAP, UNCHANGED], None, 0),
        ([caption(1), other(2, "error", "entry 2 is torn")], None, 1),
        ([caption(1), other(2, "skipped", "trimmed")], None, 1),
        ([caption(1)], "clip.mp4: it broke", 1),
        ([], None, 1),
    ],
)
def test_the_exit_code_says_whether_all_was_captioned(
    ran: Callable[..., SimpleNamespace],
    arguments: tuple[str, ...],
    events: list[Event],
    error: str | None,
    code: int,
) -> None:
    result = ran(events, *arguments, error=error).result
    assert result.exit_code == code
    assert len(result.stdout.splitlines()) >= len(events)
    assert ("streamer: clip.mp4: it broke\n" in result.stderr) == (error is not None)


def test_a_run_that_fails_says_its_sentence_after_what_it_had(
    ran: Callable[..., SimpleNamespace],
) -> None:
    dies = StreamerError("the caption worker failed: out of memory")
    result = ran([caption(1)], "--json", dies=dies).result
    assert result.exit_code == 1
    assert len(result.stdout.splitlines()) == 1
    assert result.stderr == "streamer: the caption worker failed: out of memory\n"


def test_an_interrupt_is_no_error_and_cleans_up(ran: Callable[..., SimpleNamespace]) -> None:
    result = ran([caption(1)], "--json", dies=KeyboardInterrupt()).result
    assert result.exit_code == 130
    assert "Traceback" not in result.stderr


def test_options_reach_the_run_over_the_file_and_the_environment(
    ran: Callable[..., SimpleNamespace], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("source: {fps: 1, chunk_s: 4}\nquestion: From the file?\n")
    monkeypatch.setenv("STREAMER__SOURCE__AHEAD", "3")
    seen = ran(
        [caption(1)],
        *("--json", "--config", str(config), "--fps", "5", "--question", "What?"),
        *("--pipeline", "[{name: rlt, threshold: 0.2}, {name: tome}]", "--redis-port", "7001"),
    )
    settings = seen.settings
    assert seen.url == "clip.mp4"
    assert (settings.source.fps, settings.source.chunk_s) == (5.0, 4.0)
    assert (settings.source.ahead, settings.queue.port) == (3, 7001)
    assert (settings.question, settings.model.name) == ("What?", "model")
    assert settings.pipeline == ({"name": "rlt", "threshold": 0.2}, {"name": "tome"})


def test_an_empty_pipeline_is_dense(ran: Callable[..., SimpleNamespace]) -> None:
    assert ran([caption(1)], "--pipeline", "[]").settings.pipeline == ()


def test_the_demo_prints_the_truth_beside_what_is_said(
    folder: Path, ran: Callable[..., SimpleNamespace], monkeypatch: pytest.MonkeyPatch
) -> None:
    import streamer.demo

    # Given a demo whose clip is there already, and a model that is right once
    monkeypatch.setattr(streamer.demo, "served_demo", lambda: nullcontext("clip.mp4"))
    monkeypatch.setattr(streamer.demo, "truths", lambda: ["It rains.", "It snows."])
    monkeypatch.setenv("STREAMER__MODEL__NAME", "model")
    events = [caption(1, text="It rains."), caption(2, text="It rains."), caption(3)]
    # When
    seen = ran(events, command=("demo",))
    # Then
    assert (seen.url, seen.result.exit_code) == ("clip.mp4", 0)
    lines = seen.result.stdout.splitlines()
    assert "It rains." in lines[0]
    assert "truth" in lines[1]
    assert "It snows." not in lines[1]
    assert "It rains." in lines[2]
    assert "truth: It snows." in lines[3]
