"""Settings from files, the environment and the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamer.config import Settings, load
from streamer.core.pipeline import build_pipeline
from streamer.errors import ConfigError

CONFIGS = sorted((Path(__file__).parents[3] / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.name)
def test_every_shipped_file_loads(path: Path) -> None:
    settings = load(path)
    assert len(build_pipeline(settings.pipeline).names) == len(settings.pipeline)


def test_the_default_file_says_the_defaults() -> None:
    [path] = [p for p in CONFIGS if p.name == "default.yaml"]
    said, meant = load(path), Settings()
    assert build_pipeline(said.pipeline) == build_pipeline(meant.pipeline)
    assert said.model_copy(update={"pipeline": meant.pipeline}) == meant


def test_the_command_line_wins_over_the_environment_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("source: {fps: 1, chunk_s: 3}\nquestion: From the file?")
    monkeypatch.setenv("STREAMER__SOURCE__FPS", "4")
    monkeypatch.setenv("STREAMER__QUESTION", "From the environment?")
    settings = load(path, {"question": "From the command line?"})
    assert (settings.source.fps, settings.source.chunk_s) == (4.0, 3.0)
    assert settings.question == "From the command line?"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("source: {fps: -1}", r"source\.fps: -1 is not allowed: input should be greater than 0"),
        ("source: {fps: .nan}", r"source\.fps: nan is not allowed"),
        ("sorce: {}", "sorce: there is no such setting"),
        ("question: ' '", "question: ' ' is not allowed: a question needs words"),
        ("model: {device: tpu}", r"model\.device: 'tpu' is not allowed"),
        ("[1, 2]", "must hold a mapping of settings, it holds list"),
        ("a: [", "is not YAML"),
    ],
)
def test_what_is_wrong_is_named_by_its_path(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load(path)
    assert str(path) in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load(tmp_path / "none.yaml")
