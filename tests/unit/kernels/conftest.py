"""Kernel tests run each implementation this machine can: torch, Triton, interpreted Triton."""

import importlib
import os
import sys
from collections.abc import Iterator

import pytest
import torch

CUDA = torch.cuda.is_available()
INTERPRETER = not CUDA and "triton" not in sys.modules

if INTERPRETER:
    # Triton decides when a kernel is defined. The variable goes away again so that other tests
    # in this process, which call kernels by way of operators, do not run interpreted.
    os.environ["TRITON_INTERPRET"] = "1"
    for name in ("bipartite_match", "run_length", "segment_mean"):
        importlib.import_module(f"kernels.{name}.kernel")
    del os.environ["TRITON_INTERPRET"]

RUNS = [
    pytest.param(("cpu", "reference"), id="cpu-reference"),
    pytest.param(("cpu", "triton"), id="cpu-interpreted"),
    pytest.param(("cuda", "reference"), id="cuda-reference", marks=pytest.mark.gpu),
    pytest.param(("cuda", "triton"), id="cuda-triton", marks=pytest.mark.gpu),
]


@pytest.fixture(params=RUNS)
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A device to make tensors on; kernels run with one implementation inside the test."""
    from kernels import implementation

    name, how = request.param
    if name == "cuda" and not CUDA:
        if "gpu" in os.environ.get("REQUIRE", "").split(","):
            pytest.fail("REQUIRE=gpu, and there is no CUDA device")
        pytest.skip("no CUDA device")
    if (name, how) == ("cpu", "triton"):
        if not INTERPRETER:
            if not CUDA:
                pytest.fail("Triton was imported before this file could set it to interpret")
            pytest.skip("Triton compiles for CUDA here: not interpreted")
        monkeypatch.setenv("TRITON_INTERPRET", "1")
    with implementation(how):
        yield name


@pytest.fixture(autouse=True)
def poisoned_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch.empty returns is garbage, so that an unwritten output fails a test."""
    empty = torch.empty

    def poisoned(*args: object, **kwargs: object) -> torch.Tensor:
        out: torch.Tensor = empty(*args, **kwargs)  # type: ignore[call-overload]
        return out.fill_(torch.nan if out.is_floating_point() else 77)

    monkeypatch.setattr(torch, "empty", poisoned)
