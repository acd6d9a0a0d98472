"""Model names, resolved or refused before anything is started."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import streamer.checkpoint
from streamer.checkpoint import resolve
from streamer.errors import ModelError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What passes for a checkpoint until it is loaded."""
    (tmp_path / "config.json").write_text('{"model_type": "qwen3_vl"}')
    (tmp_path / "model-00001-of-00001.safetensors").touch()
    return tmp_path


def refused(name: str | Path) -> str:
    with pytest.raises(ModelError) as caught:
        resolve(str(name))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_checkpoint_folder_is_itself(folder: Path) -> None:
    assert resolve(str(folder)) == str(folder)


def test_a_folder_may_be_named_from_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    assert resolve(f"~/{folder.name}") == str(folder)


def test_embedded_is_the_one_this_package_carries(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streamer.checkpoint, "EMBEDDED", folder)
    assert resolve("embedded") == str(folder)


def test_a_hub_name_is_left_to_transformers() -> None:
    assert resolve("Qwen/Qwen3-VL-8B-Instruct") == "Qwen/Qwen3-VL-8B-Instruct"


@pytest.mark.parametrize("name", ["/nowhere/at-all", "./nowhere", "../nowhere", "~/nowhere/at-all"])
def test_a_folder_that_does_not_exist(name: str) -> None:
    assert re.fullmatch(
        r"model folder .*nowhere.* does not exist; give a folder or 'embedded'", refused(name)
    )


def test_a_home_that_does_not_exist() -> None:
    assert "~no-such-user/model does not exist" in refused("~no-such-user/model")


def test_an_embedded_checkpoint_that_was_not_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streamer.checkpoint, "EMBEDDED", tmp_path / "gone")
    assert refused("embedded").startswith(f"model folder {tmp_path / 'gone'} does not exist")


def test_a_folder_without_a_config(folder: Path) -> None:
    (folder / "config.json").unlink()
    assert refused(folder) == f"model folder {folder} has no config.json; it holds no checkpoint"


def test_a_file_is_no_folder(folder: Path) -> None:
    assert "config.json" in refused(folder / "config.json")


@pytest.mark.parametrize("config", [b"{", b"\xff\xfe\x00"], ids=["torn", "binary"])
def test_a_config_that_is_not_json(folder: Path, config: bytes) -> None:
    (folder / "config.json").write_bytes(config)
    assert refused(folder).startswith(f"{folder / 'config.json'} is not JSON: ")


@pytest.mark.parametrize(
    ("config", "kind"),
    [('{"model_type": "llama"}', "'llama'"), ("{}", "None"), ("[]", "None"), ("1", "None")],
)
def test_another_kind_of_model(folder: Path, config: str, kind: str) -> None:
    (folder / "config.json").write_text(config)
    assert refused(folder) == f"model folder {folder} holds a {kind} model; 'qwen3_vl' is supported"


def test_a_folder_without_weights(folder: Path) -> None:
    next(folder.glob("*.safetensors")).rename(folder / "pytorch_model.bin")
    assert refused(folder) == f"model folder {folder} has no weights (*.safetensors)"
