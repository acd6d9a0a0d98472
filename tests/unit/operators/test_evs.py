import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from operators import Signals, Tokens
from operators.evs import EVS, retained

from .streams import make_tokens, segments


def film(angles: list[list[float]]) -> Tokens:
    """A row of cells per tubelet, their features unit vectors at these angles in degrees."""
    angle = torch.tensor(angles).deg2rad()
    t, w = angle.shape
    flat = angle.flatten()
    return Tokens(
        data=torch.stack([flat.cos(), flat.sin()], dim=1),
        pos=torch.cartesian_prod(torch.arange(t), torch.zeros(1).long(), torch.arange(w)).int(),
        size=torch.ones(t * w),
        run=torch.ones(t * w, dtype=torch.int32),
        offsets=torch.arange(0, t * w + 1, w),
    )


# Two cells in four tubelets: one turns by 90°, then by 10° twice; one stands still until the end.
FILM: list[list[float]] = [[0, 0], [90, 0], [100, 0], [110, 60]]


def test_three_quarters_by_hand() -> None:
    result = EVS(rate=0.25).reduce(film(FILM))  # six of eight
    assert result.reduction.group.tolist() == [0, 1, 2, -1, 3, -1, 4, 5]
    assert result.tokens.offsets.tolist() == [0, 2, 3, 4, 6]  # a still tubelet may keep nothing
    assert result.tokens.pos[:, 0].tolist() == [0, 0, 1, 2, 3, 3]


def test_the_next_chunk_pays_for_change_alone() -> None:
    tokens = film(FILM)
    first = EVS(rate=0.75).reduce(segments(tokens, 0, 2))
    assert first.reduction.group.tolist() == [0, 1, -1, -1]  # the first tubelet is over the budget
    second = EVS(rate=0.75).reduce(segments(tokens, 2, 4), state=first.state)
    assert second.reduction.group.tolist() == [-1, -1, -1, 0]


def test_a_still_picture_keeps_the_earliest_tokens_whatever_the_noise() -> None:
    noise = 1e-4 * torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    tokens = film((30 + noise).tolist())
    result = EVS(rate=0.5).reduce(tokens)
    assert result.reduction.group.tolist() == [*range(15), *[-1] * 15]


def test_what_cannot_be_compared_comes_after_what_is_new() -> None:
    tokens = film([[0, 0], [0, 0]])
    tokens.data[2] = torch.nan
    tokens.pos[3, 2] = 5  # a cell that had nothing before
    assert EVS(rate=0.9).reduce(tokens).reduction.group.tolist() == [0, 1, -1, 2]
    tokens = film([[0, 0], [0, 30], [0, 0]])
    tokens.data[2] = torch.nan
    assert EVS(rate=0.5).reduce(tokens).reduction.group.tolist() == [0, 1, 2, -1, -1, -1]


def test_pixels_instead_of_features() -> None:
    tokens = film([[0, 0], [0, 0], [0, 0]])
    change = torch.tensor([torch.inf, torch.inf, 0.1, 0.3, 0.2, 0.0])
    result = EVS(rate=0.3, space="pixel").reduce(tokens, Signals(change=change))
    assert result.reduction.group.tolist() == [0, 1, -1, 2, 3, -1]


def test_the_product_is_cut_off_in_fp64() -> None:
    count, fresh = torch.tensor([2000, 32, 10, 7]), torch.tensor([1, 1, 5, 0])
    rate = torch.tensor([0.9, 0.1, 0.9, 0.0], dtype=torch.float64)
    assert retained(count, fresh, rate).tolist() == [199, 28, 5, 7]


@given(
    lengths=st.lists(st.integers(0, 20), max_size=4),
    rate=st.floats(0, 0.99),
    seed=st.integers(0, 2**31),
)
@settings(deadline=None, max_examples=50)
def test_what_is_left_is_the_budget(lengths: list[int], rate: float, seed: int) -> None:
    tokens = make_tokens(lengths, seed)
    fresh = len(set(map(tuple, tokens.pos[:, 1:].tolist())))
    left = EVS(rate=rate).reduce(tokens).tokens.num_tokens
    assert left == max(fresh, int(tokens.num_tokens * (1 - rate)))
