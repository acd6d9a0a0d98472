"""The Triton kernels compile to machine code for a GPU, on machines that have none."""

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from kernels.bipartite_match import kernel as match
from kernels.run_length import kernel as run
from kernels.segment_mean import kernel as mean


def check(kernel, fusion, pointers, numbers, constants):
    types = dict(zip(kernel.arg_names, [*pointers.split(), *numbers.split()]))
    types |= dict.fromkeys(constants, "constexpr")
    assert list(types) == kernel.arg_names, (types, kernel.arg_names)
    values = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
    source = ASTSource(kernel, types, values)
    options = {"enable_fp_fusion": fusion}
    assert compile(source, target=GPUTarget("cuda", 80, 32), options=options).asm["cubin"]


check(
    run.distance_kernel, False, "*u8 *u8 *fp32 *u8", "fp32 fp32 fp32 fp32 i32 i32 i32 i32",
    dict(TUBELET=2, CELL=28, ROWS=32, COLS=128, HAS_FRONT=True, SYMMETRIC=True),
)
check(run.scan_kernel, False, "*u8 *i32", "i32 i32 i32", dict(BLOCK=128))
check(
    match.best_kernel, True, "*fp32 *i64 *fp32 *i64", "i32",
    dict(PROTECT_FIRST=True, PROTECT_SECOND=True, BLOCK_A=32, BLOCK_B=32, BLOCK_D=32),
)
check(
    match.rank_kernel, False, "*i64 *i64 *fp32 *i64 *i64", "", dict(BLOCK_A=32, BLOCK_OTHER=32)
)
check(mean.mean_kernel, False, "*bf16 *fp32 *i64 *i64 *bf16", "i32", dict(BLOCK=1024))
"""


def test_kernels_compile_for_a_gpu(tmp_path: Path) -> None:
    # A process of its own: here Triton may be interpreted.
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path)}
    environment.pop("TRITON_INTERPRET", None)
    subprocess.run([sys.executable, "-c", PROGRAM], check=True, timeout=110, env=environment)
