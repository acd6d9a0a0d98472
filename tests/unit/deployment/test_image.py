"""The Dockerfile: what it copies is there, and it runs as nobody in particular."""

from __future__ import annotations

import fnmatch
import re
import tomllib
from pathlib import Path

import streamer
from tests.unit.deployment.commands import CONFIGS, IN_IMAGE, ROOT

LINES = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text()).splitlines()


def instructions(name: str) -> list[str]:
    return [line.removeprefix(f"{name} ") for line in LINES if line.startswith(f"{name} ")]


def ignored(path: str) -> bool:
    """By .dockerignore, where the last line that fits counts; for what lies at the top."""
    ignored = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line and not line.startswith("#") and fnmatch.fnmatch(path, line.removeprefix("!")):
            ignored = not line.startswith("!")
    return ignored


def test_what_is_copied_is_there_and_nothing_else_reaches_the_build() -> None:
    copied = [copy.split()[:-1] for copy in instructions("COPY") if "--from" not in copy]
    sources = [source for copy in copied for source in copy]
    assert {"kernels", "operators", "streamer", "constraints.txt"} <= set(sources)
    for source in sources:
        assert list(ROOT.glob(source)), source
        assert not ignored(source.split("/")[0]), source
    tops = {source.split("/")[0] for source in sources}
    here = {path.name for path in ROOT.iterdir()} | {".env", ".git", ".venv"}
    assert {name for name in here if not ignored(name)} == tops


def test_the_bases_are_one_pinned_by_version_and_of_the_tested_python() -> None:
    [base] = [arg for arg in instructions("ARG") if arg.startswith("BASE=")]
    found = re.fullmatch(r"BASE=python:(\d+\.\d+)-slim-\w+", base)
    assert found
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert found[1] == project["tool"]["mypy"]["python_version"]
    stages = [line.split()[-1] for line in instructions("FROM")]
    for line in instructions("FROM"):
        assert line.split()[0] == "${BASE}" or line.split()[0] in stages


def test_it_runs_streamer_without_root() -> None:
    assert instructions("ENTRYPOINT") == ['["streamer"]']
    assert instructions("USER") == ["streamer"]
    [useradd] = re.findall(r"useradd [^&]*", "\n".join(LINES))
    assert "--uid 1000" in useradd


def test_versions_are_the_tested_ones_and_nothing_is_piped_into_a_shell() -> None:
    installs = [run for run in instructions("RUN") if " install " in run and "/wheel/" not in run]
    pip = [part for run in installs for part in run.split("&&") if "pip install" in part]
    assert len(pip) == 2
    for part in pip:
        assert "--constraint constraints.txt" in part
    text = "\n".join(LINES)
    assert not re.search(r"curl|wget|https?://", text)


def test_the_files_of_configs_lie_where_the_manifests_expect_them() -> None:
    assert f"configs/*.yaml {IN_IMAGE}" in instructions("COPY")
    assert (CONFIGS / "cluster.yaml").exists()


def test_the_package_holds_every_file_that_is_read_at_run_time() -> None:
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"][
        "package-data"
    ]
    for package in ("kernels", "operators", "streamer"):
        folder = ROOT / package
        patterns = [folder / pattern for pattern in data[package]]
        for path in files(folder):
            assert any(fnmatch.fnmatch(str(path), str(pattern)) for pattern in patterns), path


def files(folder: Path) -> list[Path]:
    return [
        path
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".py" and "__pycache__" not in path.parts
    ]


def test_the_manifests_name_this_version() -> None:
    text = (CONFIGS / "kubernetes" / "streamer.yaml").read_text()
    tags = set(re.findall(r"image: streamer:(\S+)", text))
    assert tags == {streamer.__version__, f"{streamer.__version__}-cuda"}
