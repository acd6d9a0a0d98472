"""Tensor kernels: each a contract, a torch reference and faster versions, chosen by device."""

from kernels._dispatch import implementation
from kernels.bipartite_match import Match, bipartite_match
from kernels.block_mean import block_mean
from kernels.patchify import patchify
from kernels.run_length import RunLength, run_length
from kernels.segment_attention import segment_attention
from kernels.segment_mean import segment_mean
from kernels.top_k import TopK, top_k

# Stays below 0.18: transformers probes for another package of this name from there on.
__version__ = "0.1.0"

__all__ = [
    "Match",
    "RunLength",
    "TopK",
    "bipartite_match",
    "block_mean",
    "implementation",
    "patchify",
    "run_length",
    "segment_attention",
    "segment_mean",
    "top_k",
]
