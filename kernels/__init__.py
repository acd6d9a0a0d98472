"""Tensor kernels: each a contract, a torch reference and a Triton version, chosen by device."""

from kernels._dispatch import implementation, use_triton
from kernels.bipartite_match import Match, bipartite_match
from kernels.run_length import RunLength, run_length
from kernels.segment_mean import segment_mean

# Stays below 0.18: transformers probes for another package of this name from there on.
__version__ = "0.1.0"

__all__ = [
    "Match",
    "RunLength",
    "bipartite_match",
    "implementation",
    "run_length",
    "segment_mean",
    "use_triton",
]
