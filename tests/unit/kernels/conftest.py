"""Kernel tests run each implementation there is and this machine can: torch, numba, Triton."""

import importlib
import os
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

import kernels

CUDA = torch.cuda.is_available()
INTERPRETER = not CUDA and "triton" not in sys.modules
FOLDER = Path(kernels.__file__).parent
FILES = {"reference": "reference.py", "native": "native.py", "triton": "kernel.py"}

if INTERPRETER:
    # Triton decides when a kernel is defined. The variable goes away again so that other tests
    # in this process, which call kernels by way of operators, do not run interpreted.
    os.environ["TRITON_INTERPRET"] = "1"
    for path in FOLDER.glob("*/kernel.py"):
        importlib.import_module(f"kernels.{path.parent.name}.kernel")
    del os.environ["TRITON_INTERPRET"]

RUNS = {
    "cpu-reference": ("cpu", "reference"),
    "cpu-native": ("cpu", "native"),
    "cpu-interpreted": ("cpu", "triton"),
    "cuda-reference": ("cuda", "reference"),
    "cuda-triton": ("cuda", "triton"),
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`test_<name>.py` runs what the folder `kernels/<name>` holds."""
    if "device" in metafunc.fixturenames:
        kernel = metafunc.module.__name__.rpartition(".")[2].removeprefix("test_")
        runs = [
            pytest.param(run, id=name, marks=pytest.mark.gpu if run[0] == "cuda" else ())
            for name, run in RUNS.items()
            if (FOLDER / kernel / FILES[run[1]]).exists()
        ]
        metafunc.parametrize("device", runs, indirect=True)


@pytest.fixture
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A device to make tensors on; kernels run with one implementation inside the test."""
    name, how = request.param
    if name == "cuda" and not CUDA:
        _skip("gpu", "there is no CUDA device")
    if how == "native" and not find_spec("numba"):
        _skip("numba", "numba is not installed")
    if (name, how) == ("cpu", "triton"):
        if not INTERPRETER:
            if not CUDA:
                pytest.fail("Triton was imported before this file could set it to interpret")
            pytest.skip("Triton compiles for CUDA here: not interpreted")
        monkeypatch.setenv("TRITON_INTERPRET", "1")
    with kernels.implementation(how):
        yield name


def _skip(need: str, reason: str) -> None:
    if need in os.environ.get("REQUIRE", "").split(","):
        pytest.fail(f"REQUIRE={need}, and {reason}")
    pytest.skip(reason)


@pytest.fixture(autouse=True)
def poisoned_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch.empty returns is garbage, so that an unwritten output fails a test."""
    empty = torch.empty

    def poisoned(*args: object, **kwargs: object) -> torch.Tensor:
        out: torch.Tensor = empty(*args, **kwargs)  # type: ignore[call-overload]
        return out.fill_(torch.nan if out.is_floating_point() else 77)

    monkeypatch.setattr(torch, "empty", poisoned)
