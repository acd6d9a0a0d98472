"""How `eval` ends: what it writes, what it complains of, and what an interruption leaves."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from streamer.cli import app
from streamer.commands import evaluate as command
from streamer.commands.ending import FAILED, INTERRUPTED, OK
from streamer.config import load
from streamer.errors import SourceError
from streamer.evaluation.answers import Answer, ChunkCost, Judgement, Mark, Run
from streamer.evaluation.dataset import Dataset
from streamer.evaluation.pipelines import Candidate
from streamer.evaluation.report import Report
from streamer.evaluation.stream import Serving
from tests.clips import render


def an_answer(*, error: str = "") -> Answer:
    marks = {} if error else {"exact": Mark(right=True)}
    return Answer(
        pipeline="dense",
        clip="clip 0",
        item="caption",
        t0=0.0,
        t1=2.0,
        question="?",
        said="",
        judgement=Judgement(expected="", marks=marks),
        tokens=20,
        dense=40,
        llm_ms=1.0,
        error=error,
    )


def evaluated(
    monkeypatch: pytest.MonkeyPatch,
    *options: str,
    answers: Sequence[Answer],
    interrupted_after: int | None = None,
) -> Result:
    """The command, where a clip is through with these answers; then it may be interrupted."""

    def evaluate(
        data: Dataset,
        candidates: Sequence[Candidate],
        model: None,
        *,
        serving: Serving,
        together: int,
        answered: Callable[[Answer], None],
        progressed: Callable[[int], None],
        runs: list[Run],
    ) -> list[Run]:
        runs.append(Run(label="dense", family="dense", dense=True))
        for answer in answers:
            answered(answer)
        if interrupted_after == 0:
            raise KeyboardInterrupt
        runs[0].answers += answers
        runs[0].costs.append(
            ChunkCost(clip="clip 0", seconds=2.0, tokens=20, dense=40, decode_ms=1, encode_ms=1)
        )
        progressed(1)
        if interrupted_after == 1:
            raise KeyboardInterrupt
        return runs

    monkeypatch.setattr(command, "_model", lambda *_, **__: None)
    monkeypatch.setattr("streamer.evaluation.run.evaluate", evaluate)
    return CliRunner().invoke(app, ["eval", "--clips", "2", "--pipeline", "[]", *options])


def test_answers_tables_and_curves_are_in_the_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    out = tmp_path / "some" / "results"
    result = evaluated(monkeypatch, "--out", str(out), answers=[an_answer()])
    assert result.exit_code == OK, result.stderr
    assert "| exact     | dense    | 1 | 100.0 % |" in result.stdout
    [line] = (out / "answers.jsonl").read_text().splitlines()
    assert json.loads(line)["clip"] == "clip 0"
    assert (out / "results.csv").is_file()


def test_a_folder_that_holds_something_is_not_written_into(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "answers.jsonl").write_text("older\n")
    result = evaluated(monkeypatch, "--out", str(tmp_path), answers=[an_answer()])
    assert result.exit_code == FAILED
    assert result.stderr.startswith(f"streamer: --out {tmp_path} is not empty; give a new folder")
    assert (tmp_path / "answers.jsonl").read_text() == "older\n"


def test_a_folder_that_cannot_be_made_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "results"
    result = evaluated(monkeypatch, "--out", str(out), answers=[an_answer()])
    assert result.exit_code == FAILED
    assert result.stderr == f"streamer: --out {out} cannot be written: Not a directory\n"


def test_a_disk_that_is_full_in_the_end_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(report: Report, folder: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("streamer.evaluation.report.write", full)
    out = tmp_path / "results"
    result = evaluated(monkeypatch, "--out", str(out), answers=[an_answer()])
    assert result.exit_code == FAILED
    assert result.stderr == f"streamer: --out {out} cannot be written: No space left on device\n"
    assert "| exact     | dense    |" in result.stdout


def test_an_answer_that_cannot_be_written_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Path("/dev/full").open("w", buffering=1) as full:
        monkeypatch.setattr(command, "_new", lambda _: full)
        result = evaluated(monkeypatch, "--out", "results", answers=[an_answer()])
    assert result.exit_code == FAILED
    assert result.stderr == "streamer: --out results cannot be written: No space left on device\n"


def test_an_interruption_leaves_what_was_through(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    out = tmp_path / "results"
    result = evaluated(monkeypatch, "--out", str(out), answers=[an_answer()], interrupted_after=1)
    assert result.exit_code == INTERRUPTED
    assert "| exact     | dense    | 1 | 100.0 % |" in result.stdout
    assert "| exact     | dense    | 1 | 100.0 % |" in (out / "summary.md").read_text()
    assert result.stderr.endswith("interrupted; the tables are of 1 of 2 clips × pipelines\n")


def test_an_interruption_before_anything_was_through_leaves_no_tables(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    result = evaluated(monkeypatch, answers=[an_answer()], interrupted_after=0)
    assert result.exit_code == INTERRUPTED
    assert result.stdout == ""


def test_an_evaluation_without_any_answer_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    result = evaluated(monkeypatch, answers=[an_answer(error="it does not fit")])
    assert result.exit_code == FAILED
    assert "streamer: nothing was answered, so there is nothing to compare\n" in result.stderr


def test_a_chunk_that_would_fill_the_memory_breaks_its_video(tmp_path: Path) -> None:
    render(tmp_path / "a.mp4", 2, size=(1280, 720))
    (tmp_path / "mine.jsonl").write_text('{"video": "a.mp4", "answer": "x"}')
    settings = load(None, {"source": {"fps": 30.0, "chunk_s": 60.0}})
    [clip] = command._questions(tmp_path / "mine.jsonl", settings, None)
    with pytest.raises(SourceError, match=r"a\.mp4: source: fps 30 × chunk_s 60 is 4\.6 GiB"):
        next(clip.chunks())
