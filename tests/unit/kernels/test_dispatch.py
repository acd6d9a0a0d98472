import subprocess
import sys

import pytest
import torch

import kernels
from kernels import implementation, use_triton


def test_all_is_sorted_and_true() -> None:
    assert all(hasattr(kernels, name) for name in kernels.__all__)
    assert len(set(kernels.__all__)) == len(kernels.__all__)


def test_version_is_below_what_transformers_probes_for() -> None:
    assert tuple(int(part) for part in kernels.__version__.split(".")) < (0, 18)


def test_cpu_tensors_use_the_reference() -> None:
    assert not use_triton(torch.zeros(1))


def test_interpreter_variable_selects_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert use_triton(torch.zeros(1))
    with implementation("reference"):
        assert not use_triton(torch.zeros(1))
    assert use_triton(torch.zeros(1))


def test_forcing_triton_where_it_cannot_run_fails() -> None:
    with implementation("triton"), pytest.raises(RuntimeError, match="tensors on cpu"):
        use_triton(torch.zeros(1))


def test_unknown_implementation_fails() -> None:
    with pytest.raises(ValueError, match="not one of"), implementation("cuda"):  # type: ignore[arg-type]
        pass


def test_everything_works_on_a_cpu_without_triton() -> None:
    program = """
import sys
sys.modules["triton"] = None  # importing it now fails
import torch, kernels
one = torch.ones(2, 3)
mean = kernels.segment_mean(one, torch.ones(2), torch.zeros(2, dtype=torch.int64), 1)
assert mean.tolist() == [[1.0, 1.0, 1.0]]
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
