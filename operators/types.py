"""The values operators take and return: packed tokens, what is known of them, plans, selections."""

from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from operators.errors import ShapeError

StateT = TypeVar("StateT")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Tokens:
    """Tokens of S segments (tubelets) laid end to end, without padding.

    Content (borders, sizes) is checked on CPU tensors only: on a GPU that would wait for it.
    """

    data: Tensor
    """`[N, D]` floating: features."""
    pos: Tensor
    """int32 `[N, 3]`: (t, h, w) in cells."""
    size: Tensor
    """fp32 `[N]`, > 0: cells each token stands for."""
    run: Tensor
    """int32 `[N]`: tubelets each token stays valid for."""
    offsets: Tensor
    """int64 `[S+1]`: segment borders, from 0 to N."""
    deepstack: Tensor | None = None
    """`[L, N, D]` floating: the same tokens after L inner layers of the encoder."""

    def __post_init__(self) -> None:
        if self.data.ndim != 2 or not self.data.is_floating_point():
            raise ShapeError(f"{self}: data must be floating [N, D].")
        n = self.data.shape[0]
        _expect(self, "pos", self.pos, torch.int32, (n, 3))
        _expect(self, "size", self.size, torch.float32, (n,))
        _expect(self, "run", self.run, torch.int32, (n,))
        _expect_borders(self, self.offsets, n)
        stack = self.deepstack
        if stack is not None and (
            stack.ndim != 3 or stack.shape[1] != n or not stack.is_floating_point()
        ):
            raise ShapeError(f"{self}: deepstack must be floating [L, {n}, D].")
        devices = {
            str(tensor.device)
            for tensor in (self.data, self.pos, self.size, self.run, self.offsets, stack)
            if tensor is not None
        }
        if len(devices) > 1:
            raise ShapeError(f"{self}: fields are on {sorted(devices)}; move them to one device.")
        if self.size.device.type == "cpu" and not (self.size > 0).all():
            raise ShapeError(f"{self}: every size must be > 0; a token stands for some cells.")

    @property
    def num_tokens(self) -> int:
        return self.data.shape[0]

    @property
    def num_segments(self) -> int:
        return self.offsets.shape[0] - 1

    def __repr__(self) -> str:
        return (
            f"Tokens(data={_shape(self.data)}, pos={_shape(self.pos)}, size={_shape(self.size)}, "
            f"run={_shape(self.run)}, offsets={_shape(self.offsets)}, "
            f"deepstack={_shape(self.deepstack)})"
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Signals:
    """What else is known of each token; fields are absent (None) unless an operator needs them.

    They are reduced together with the tokens, so that the next operator never sees a stale one.
    """

    attention: Tensor | None = None
    """fp32 `[N]`: attention each token receives. Token stage: from the [CLS] token, or where there
    is none the mean over the queries of its segment; decoder stage: from the last token of the
    context, mean over heads."""
    keys: Tensor | None = None
    """fp32 `[N, K]`: the token's attention key, heads side by side."""
    change: Tensor | None = None
    """fp32 `[N]`: mean absolute difference of the cell's pixels, in [0, 1], between the last frame
    of its tubelet and the first one of the tubelet before; inf where there is none before."""

    def __post_init__(self) -> None:
        lengths = {}
        for name in SIGNALS:
            tensor = getattr(self, name)
            if tensor is None:
                continue
            rank = 2 if name == "keys" else 1
            if tensor.dtype != torch.float32 or tensor.ndim != rank:
                raise ShapeError(f"{self}: {name} must be float32 of {rank} dimension(s).")
            lengths[name] = tensor.shape[0]
        if len(set(lengths.values())) > 1:
            raise ShapeError(f"{self}: fields are of different numbers of tokens.")

    @property
    def present(self) -> frozenset[str]:
        """Names of the fields that are given."""
        return frozenset(name for name in SIGNALS if getattr(self, name) is not None)

    def __repr__(self) -> str:
        return "Signals(" + ", ".join(f"{n}={_shape(getattr(self, n))}" for n in SIGNALS) + ")"


SIGNALS = ("attention", "keys", "change")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Mixing:
    """How outputs are made of tokens, where that is more than a mean of each one's own sources.

    Output `slot[e]` receives `weight[e]` times token `source[e]`, for every e, summed as they are.
    """

    slot: Tensor
    """int64 `[E]`."""
    source: Tensor
    """int64 `[E]`."""
    weight: Tensor
    """fp32 `[E]`."""

    def __post_init__(self) -> None:
        if self.slot.dtype != torch.int64 or self.slot.ndim != 1:
            raise ShapeError(f"{self}: slot must be int64 [E].")
        _expect(self, "source", self.source, torch.int64, tuple(self.slot.shape))
        _expect(self, "weight", self.weight, torch.float32, tuple(self.slot.shape))

    def __repr__(self) -> str:
        return (
            f"Mixing(slot={_shape(self.slot)}, source={_shape(self.source)}, "
            f"weight={_shape(self.weight)})"
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Reduction:
    """A plan: which output token each token goes to, and how much it counts there.

    Output slots are dense and in the order of the segments: segment s owns
    `offsets[s] .. offsets[s+1] - 1`. Sizes, runs and positions always follow `group`; features do,
    as weighted means, unless there is a `mixing`.
    """

    group: Tensor
    """int64 `[N]`: output slot, -1 = dropped."""
    weight: Tensor
    """fp32 `[N]`: share in the slot's mean, relative to the others in it."""
    offsets: Tensor
    """int64 `[S+1]`: segment borders after the reduction, from 0 to M."""
    mixing: Mixing | None = None

    def __post_init__(self) -> None:
        if self.group.dtype != torch.int64 or self.group.ndim != 1:
            raise ShapeError(f"{self}: group must be int64 [N].")
        _expect(self, "weight", self.weight, torch.float32, (self.group.shape[0],))
        _expect_borders(self, self.offsets, None)

    def __repr__(self) -> str:
        return (
            f"Reduction(group={_shape(self.group)}, weight={_shape(self.weight)}, "
            f"offsets={_shape(self.offsets)}, mixing={self.mixing!r})"
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Result:
    """What is left after an operator."""

    tokens: Tokens
    signals: Signals
    reduction: Reduction
    state: object | None
    """To be given with the next chunk of the same stream; None if the operator carries nothing."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Selection(Generic[StateT]):
    """Which cells of a chunk of frames become tokens; T' tubelets of h x w cells."""

    keep: Tensor
    """bool `[T', h, w]`."""
    run: Tensor
    """int32 `[T', h, w]`: tubelets a kept cell stays valid, so far; 0 where not kept."""
    distance: Tensor
    """fp32 `[T', h, w]`: what was compared with the threshold; inf where there was nothing to
    compare with. Of a cell that is merely refreshed it is as of any other."""
    state: StateT
    """To be given with the next chunk of the same video."""

    def __repr__(self) -> str:
        return f"Selection(keep={_shape(self.keep)}, state={self.state!r})"


def _shape(tensor: Tensor | None) -> str:
    if tensor is None:
        return "None"
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"


def _expect(
    owner: object, name: str, tensor: Tensor, dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    if tensor.dtype != dtype or tensor.shape != shape:
        wanted = f"{str(dtype).removeprefix('torch.')}{list(shape)}"
        raise ShapeError(f"{owner}: {name} must be {wanted}.")


def _expect_borders(owner: object, offsets: Tensor, n: int | None) -> None:
    if offsets.dtype != torch.int64 or offsets.ndim != 1 or not offsets.shape[0]:
        raise ShapeError(f"{owner}: offsets must be int64 [S+1].")
    if offsets.device.type != "cpu":
        return
    if offsets[0] != 0 or (offsets.diff() < 0).any() or (n is not None and offsets[-1] != n):
        end = "M" if n is None else n
        raise ShapeError(
            f"{owner}: offsets {offsets.tolist()} must run from 0 to {end} and not decrease."
        )
