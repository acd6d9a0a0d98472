"""Tokens as the encoder gives them, made up: in the order of time, one at a cell."""

import dataclasses

import torch
from torch import Tensor

from operators import Signals, Tokens

GRID = (6, 7)


def make_tokens(lengths: list[int], seed: int, dtype: torch.dtype = torch.float32) -> Tokens:
    """Tubelets of so many kept cells, rising; about half of them much like the one before."""
    generator = torch.Generator().manual_seed(seed)
    n = sum(lengths)
    cells = [
        torch.randperm(GRID[0] * GRID[1], generator=generator)[:length].sort().values
        for length in lengths
    ]
    cell = torch.cat(cells or [torch.arange(0)])
    tubelet = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths).long())
    scene = torch.randn(GRID[0] * GRID[1], 6, generator=generator)[cell]
    spread = torch.rand(n, 1, generator=generator).round() + 0.01
    return Tokens(
        data=(scene + spread * torch.randn(n, 6, generator=generator)).to(dtype),
        pos=torch.stack([tubelet, cell // GRID[1], cell % GRID[1]], dim=1).int(),
        size=torch.randint(1, 5, (n,), generator=generator).float(),
        run=torch.randint(1, 9, (n,), generator=generator, dtype=torch.int32),
        offsets=torch.tensor([0, *lengths]).cumsum(0),
        deepstack=torch.randn(2, n, 3, generator=generator).to(dtype),
    )


def make_signals(tokens: Tokens, seed: int = 0) -> Signals:
    """All there are; attention with a few outliers, change inf in the first tubelet."""
    generator = torch.Generator().manual_seed(seed)
    n = tokens.num_tokens
    change = torch.rand(n, generator=generator)
    return Signals(
        attention=torch.randn(n, generator=generator).mul(2).exp(),
        keys=torch.randn(n, 5, generator=generator),
        change=torch.where(tokens.pos[:, 0] == 0, torch.inf, change),
    )


def segments(tokens: Tokens, first: int, last: int) -> Tokens:
    """Those of segments first .. last - 1."""
    start, end = int(tokens.offsets[first]), int(tokens.offsets[last])
    return Tokens(
        data=tokens.data[start:end],
        pos=tokens.pos[start:end],
        size=tokens.size[start:end],
        run=tokens.run[start:end],
        offsets=tokens.offsets[first : last + 1] - start,
        deepstack=None if tokens.deepstack is None else tokens.deepstack[:, start:end],
    )


def signals_of(signals: Signals, tokens: Tokens, first: int, last: int) -> Signals:
    """Those of the tokens of segments first .. last - 1."""
    part = slice(int(tokens.offsets[first]), int(tokens.offsets[last]))
    return Signals(**{name: tensor[part] for name, tensor in tensors(signals).items()})


def tensors(value: object) -> dict[str, Tensor]:
    """The tensors of a dataclass by name, also those of dataclasses in it."""
    out = {}
    for field in dataclasses.fields(value):  # type: ignore[arg-type]
        item = getattr(value, field.name)
        if isinstance(item, Tensor):
            out[field.name] = item
        elif dataclasses.is_dataclass(item):
            out |= {f"{field.name}.{key}": tensor for key, tensor in tensors(item).items()}
    return out


def assert_equal(a: object, b: object) -> None:
    """Bit for bit; a NaN equals a NaN."""
    ours, theirs = tensors(a), tensors(b)
    assert ours.keys() == theirs.keys()
    for key, tensor in ours.items():
        assert tensor.dtype == theirs[key].dtype, key
        torch.testing.assert_close(tensor, theirs[key], rtol=0, atol=0, equal_nan=True)
