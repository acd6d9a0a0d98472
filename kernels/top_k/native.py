"""top_k compiled for the CPU: the k-th score by its bits, eight at a time, and no sort."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kernels._native import compiled, in_parts
from kernels.top_k.reference import TopK

Ints = NDArray[np.int32]
Longs = NDArray[np.int64]


INFINITE = 0x7F800000  # the bits of infinity; those of NaN are larger


@compiled("void(i8, i8, i4[::1], i8[::1], i8[::1], i4[::1], i8[::1])")
def _select(
    begin: int, end: int, bits: Ints, offsets: Longs, kept: Longs, key: Ints, group: Longs
) -> None:
    """Writes `group` of segments begin .. end. `bits` are those of fp32 scores."""
    counts = np.empty(256, np.int64)
    for segment in range(begin, end):
        start, stop = offsets[segment], offsets[segment + 1]
        place, ties = kept[segment], kept[segment + 1] - kept[segment]
        if ties == 0:
            group[start:stop] = -1
            continue
        for i in range(start, stop):
            magnitude = min(bits[i] & 0x7FFFFFFF, INFINITE)
            negative = bits[i] < 0 or (bits[i] & 0x7FFFFFFF) > INFINITE
            key[i] = -magnitude if negative else magnitude
        limit = np.int64(0)  # the key of the k-th score, as far as its bits are known
        for shift in (24, 16, 8, 0):
            counts[:] = 0
            for i in range(start, stop):
                known = (np.int64(key[i]) + 2**31) >> shift
                if known >> 8 == limit:
                    counts[known & 255] += 1
            digit = 255
            while counts[digit] < ties:
                ties -= counts[digit]
                digit -= 1
            limit = (limit << 8) | digit
        limit -= 2**31
        for i in range(start, stop):
            equal = key[i] == limit
            if key[i] > limit or (equal and ties > 0):
                ties -= equal
                group[i] = place
                place += 1
            else:
                group[i] = -1


def top_k(score: Tensor, offsets: Tensor, k: Tensor) -> TopK:
    kept = torch.zeros_like(offsets)
    torch.cumsum(torch.minimum(k.clamp(min=0), offsets.diff()), 0, out=kept[1:])
    group = torch.empty(score.shape[0], dtype=torch.int64)
    bits = score.float().contiguous().view(torch.int32)
    key = torch.empty_like(bits)
    arrays = tuple(x.contiguous().numpy() for x in (bits, offsets, kept, key, group))
    in_parts(lambda begin, end: _select(begin, end, *arrays), k.shape[0], size=16 * len(bits))
    return TopK(group=group, offsets=kept)
