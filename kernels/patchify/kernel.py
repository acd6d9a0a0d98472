"""patchify in Triton: one program per patch, written in order; what it reads stays in the cache."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.patchify.reference import Channels, Layout

BLOCK = 512  # values written at once


@triton.jit(do_not_specialize=["rows", "columns"])
def patch_kernel(
    frames,
    index,
    patches,
    mean0,
    mean1,
    mean2,
    std0,
    std1,
    std2,
    rows,
    columns,
    TUBELET: tl.constexpr,
    PATCH: tl.constexpr,
    MERGE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    i_patch = tl.program_id(0).to(tl.int64)
    i_k = i_patch % (MERGE * MERGE)
    place = tl.load(index + i_patch // (MERGE * MERGE))
    i_t = place // columns // rows
    i_row = (place // columns) % rows * MERGE + i_k // MERGE
    i_column = place % columns * MERGE + i_k % MERGE
    line = columns.to(tl.int64) * (MERGE * PATCH * 3)
    frame = rows * (MERGE * PATCH) * line
    o_patch = i_t * TUBELET * frame + i_row * PATCH * line + i_column * (PATCH * 3)

    LENGTH: tl.constexpr = 3 * TUBELET * PATCH * PATCH
    for start in range(0, LENGTH, BLOCK):
        o = start + tl.arange(0, BLOCK)
        m = o < LENGTH
        i_c = o // (TUBELET * PATCH * PATCH)
        i_s = o // (PATCH * PATCH) % TUBELET
        i_y = o // PATCH % PATCH
        i_x = o % PATCH
        x = tl.load(frames + o_patch + i_s * frame + i_y * line + i_x * 3 + i_c, mask=m, other=0)
        mean = tl.where(i_c == 0, mean0, tl.where(i_c == 1, mean1, mean2))
        std = tl.where(i_c == 0, std0, tl.where(i_c == 1, std1, std2))
        value = tl.div_rn(x.to(tl.float32) - mean, std)
        tl.store(patches + i_patch * LENGTH + o, value.to(patches.dtype.element_ty), mask=m)


def patchify(
    frames: Tensor, index: Tensor, layout: Layout, mean: Channels, std: Channels, dtype: torch.dtype
) -> Tensor:
    frames, index = frames.contiguous(), index.contiguous()
    rows, columns = (edge // layout.cell for edge in frames.shape[1:3])
    count = len(index) * layout.merge**2
    length = 3 * layout.tubelet * layout.patch**2
    patches = torch.empty((count, length), dtype=dtype, device=frames.device)
    if count:
        patch_kernel[(count,)](
            frames,
            index,
            patches,
            *(torch.tensor(mean) * 255).tolist(),  # as the reference rounds
            *(torch.tensor(std) * 255).tolist(),
            rows,
            columns,
            TUBELET=layout.tubelet,
            PATCH=layout.patch,
            MERGE=layout.merge,
            BLOCK=BLOCK,
            enable_fp_fusion=False,
        )
    return patches
