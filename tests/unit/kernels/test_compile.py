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
from kernels.block_mean import kernel as block
from kernels.patchify import kernel as patch
from kernels.run_length import kernel as run
from kernels.segment_attention import kernel as attention
from kernels.segment_mean import kernel as mean
from kernels.top_k import kernel as top


def check(kernel, fusion, pointers, numbers, constants):
    types = dict(zip(kernel.arg_names, [*pointers.split(), *numbers.split()]))
    types |= dict.fromkeys(constants, "constexpr")
    assert list(types) == kernel.arg_names, (types, kernel.arg_names)
    values = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
    source = ASTSource(kernel, types, values)
    options = {"enable_fp_fusion": fusion}
    assert compile(source, target=GPUTarget("cuda", 80, 32), options=options).asm["cubin"]


check(block.mean_kernel, False, "*u8 *fp32", "i32 i32 i32 fp32", dict(EDGE=4, BLOCK=256))
check(
    run.walk_kernel, False, "*u8 *u8 *i32 *u8 *i32 *fp32 *i32 *u8",
    "fp32 fp32 fp32 fp32 i32 i32 i32 i32",
    dict(TUBELET=2, CELL=28, ROWS=32, COLS=128, SYMMETRIC=True, FROM_HEAD=True),
)
check(run.count_kernel, False, "*u8 *i32", "i32", dict(BLOCK=1024))
check(
    run.compact_kernel, False, "*u8 *i32 *i64 *i64", "i32 i32", dict(BLOCK=1024, COUNT_BLOCK=1024)
)
check(
    match.best_kernel, True, "*fp32 *fp32 *i64 *fp32 *i64", "i32",
    dict(PROTECT_FIRST=True, PROTECT_SECOND=True, BLOCK_A=32, BLOCK_B=32, BLOCK_D=32),
)
check(
    match.rank_kernel, False, "*i64 *i64 *fp32 *i64 *i64", "", dict(BLOCK_A=32, BLOCK_OTHER=32)
)
check(
    patch.patch_kernel, False, "*u8 *i64 *bf16", "fp32 fp32 fp32 fp32 fp32 fp32 i32 i32",
    dict(TUBELET=2, PATCH=14, MERGE=2, BLOCK=512),
)
check(mean.mean_kernel, False, "*bf16 *fp32 *i64 *i64 *bf16", "i32", dict(BLOCK=1024))
check(top.select_kernel, False, "*fp32 *i64 *i64 *i64", "", dict(BLOCK=1024))
for dtype, block, channels in (("*bf16", 64, 64), ("*bf16", 64, 128), ("*fp32", 32, 128)):
    check(
        attention.attention_kernel, True, f"{dtype} {dtype} {dtype} *i32 *fp32 {dtype}",
        "fp32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32",
        dict(SIZED=True, BLOCK_Q=block, BLOCK_K=block, BLOCK_D=channels),
    )
"""


def test_kernels_compile_for_a_gpu(tmp_path: Path) -> None:
    # A process of its own: here Triton may be interpreted.
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path)}
    environment.pop("TRITON_INTERPRET", None)
    subprocess.run([sys.executable, "-c", PROGRAM], check=True, timeout=110, env=environment)
