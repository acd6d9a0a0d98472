import subprocess
import sys
from collections.abc import Callable

import pytest
import torch

import kernels
from kernels import implementation
from kernels._dispatch import choose

ONE = torch.zeros(1)


def test_all_is_sorted_and_true() -> None:
    assert all(hasattr(kernels, name) for name in kernels.__all__)
    assert len(set(kernels.__all__)) == len(kernels.__all__)


def test_version_is_below_what_transformers_probes_for() -> None:
    assert tuple(int(part) for part in kernels.__version__.split(".")) < (0, 18)


def test_cpu_tensors_use_the_native_version_where_there_is_one() -> None:
    pytest.importorskip("numba")
    assert choose(ONE) == "reference"
    assert choose(ONE, native=True) == "native"
    with implementation("reference"):
        assert choose(ONE, native=True) == "reference"


def test_interpreter_variable_selects_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert choose(ONE, native=True) == "triton"
    with implementation("reference"):
        assert choose(ONE) == "reference"
    assert choose(ONE) == "triton"


def test_forcing_what_cannot_run_fails() -> None:
    with implementation("triton"), pytest.raises(RuntimeError, match="tensors on cpu"):
        choose(ONE)
    with implementation("native"):
        with pytest.raises(RuntimeError, match="kernel that has"):
            choose(ONE)
        with pytest.raises(RuntimeError, match="tensors on meta"):
            choose(ONE.to("meta"), native=True)


def test_unknown_implementation_fails() -> None:
    with pytest.raises(ValueError, match="native, reference, triton"), implementation("cuda"):  # type: ignore[arg-type]
        pass


def test_without_triton_and_numba_the_reference_runs_and_says_so_once() -> None:
    program = """
import sys
sys.modules |= {"triton": None, "numba": None}  # importing them now fails
import torch, kernels
one = torch.ones(2, 3)
mean = kernels.segment_mean(one, torch.ones(2), torch.zeros(2, dtype=torch.int64), 1)
assert mean.tolist() == [[1.0, 1.0, 1.0]]
frames = torch.zeros(1, 2, 4, 4, 3, dtype=torch.uint8)
for _ in range(2):
    assert kernels.run_length(frames, tubelet=2, cell=2, threshold=0.1).keep.all()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, timeout=110, text=True, stderr=subprocess.PIPE
    )
    assert done.stderr.count("no numba") == 1


def test_loops_compile_where_nothing_can_be_kept(caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("numba")
    from kernels._native import compiled

    namespace: dict[str, Callable[[int], int]] = {}
    exec("def double(x): return 2 * x", namespace)  # without a file there is no folder, either
    assert compiled("i8(i8)")(namespace["double"])(21) == 42
    assert "set NUMBA_CACHE_DIR" in caplog.text
