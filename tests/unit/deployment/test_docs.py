"""docs/deployment.md: its settings are those of this version, and its figures are true."""

from __future__ import annotations

import re

import pytest
import torch

from streamer.config import PREFIX, walk
from streamer.wire import ChunkHead, TokenChunk, encode
from tests.settings_table import DOCUMENT, in_document
from tests.unit.deployment.commands import CONFIGS, ROOT

TEXT = DOCUMENT.read_text(encoding="utf-8")


def test_the_tables_of_settings_are_those_of_the_code() -> None:
    assert in_document(TEXT) == TEXT, "run `python -m tests.settings_table`, then `git diff`"


def test_every_setting_says_what_it_is_for() -> None:
    obvious = {("api", "port"), ("log", "level")}
    for path, field in walk():
        assert field.description or path in obvious, ".".join(path)


def test_every_setting_that_is_named_exists() -> None:
    known = {".".join(path) for path, _ in walk()}
    known |= {re.sub(r"^pools\.\w+", "pools.<kind>", name) for name in known}
    prose = TEXT[: TEXT.index("## Settings")]
    sections = {name.split(".")[0] for name in known if "." in name}
    named = {
        name
        for name in re.findall(r"`([a-z]+(?:\.<kind>)?\.[a-z_]+)(?:: [^`]*)?`", prose)
        if name.split(".")[0] in sections
    }
    assert len(named) > 5
    assert named <= known
    for variable in re.findall(rf"{PREFIX}(\w+)", TEXT):
        assert variable.lower().replace("__", ".") in known


def test_every_file_of_configs_is_explained() -> None:
    for path in CONFIGS.rglob("*.yaml"):
        assert f"(../{path.relative_to(ROOT)})" in TEXT
    for link in re.findall(r"\]\(\.\./([^)#]+)\)", TEXT):
        assert (ROOT / link).exists()


@pytest.mark.parametrize(("d", "layers", "each"), [(128, 1, 532), (4096, 3, 32788)])
def test_a_token_takes_the_bytes_that_are_said(d: int, layers: int, each: int) -> None:
    assert f"{each} for " in " ".join(TEXT.split())
    assert each == 2 * d * (1 + layers) + 20
    n, side = 200, 10
    head = ChunkHead(
        job="some-camera-0123456789abcdef",
        number=123456,
        kind="I",
        t0=246912.0,
        t1=246914.0,
        tubelet_s=(246912.5, 246913.5),
        grid=(side, side),
        tokens=n,
        patches_kept=n,
        dense=n,
        operators=("rlt",),
    )
    chunk = TokenChunk(
        head=head,
        tokens=torch.zeros(n, d, dtype=torch.bfloat16),
        position=torch.zeros(n, 3, dtype=torch.int32),
        run=torch.ones(n, dtype=torch.int32),
        size=torch.ones(n),
        deepstack=torch.zeros(layers, n, d, dtype=torch.bfloat16),
    )
    taken = sum(len(field) for field in encode(chunk).values())
    assert n * each < taken < n * each + 1100  # "about a kilobyte"
