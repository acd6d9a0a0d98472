import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from operators import Signals
from operators.dtd import DTD

from .streams import make_signals, make_tokens, segments, signals_of
from .test_evs import FILM, film


def test_cosine_of_a_half_by_hand() -> None:
    result = DTD().reduce(film(FILM))  # cos 60° is 0.5, and not above it
    assert result.reduction.group.tolist() == [0, 1, 2, -1, -1, -1, -1, 3]
    assert result.tokens.pos[:, 0].tolist() == [0, 0, 1, 3]


def test_a_slow_drift_goes_unseen() -> None:
    result = DTD().reduce(film([[10.0 * t] for t in range(20)]))
    assert result.tokens.num_tokens == 1


def test_pixels_by_hand() -> None:
    change = torch.tensor([torch.inf, torch.inf, 0.125, 0.05, 0.0, 0.2, torch.nan, 0.1])
    operator = DTD(space="pixel", threshold=0.125)  # not below: kept
    result = operator.reduce(film(FILM), Signals(change=change))
    assert result.reduction.group.tolist() == [0, 1, 2, -1, -1, 3, 4, -1]


def test_relative_drops_a_share_of_each_tubelet() -> None:
    result = DTD(relative=True, threshold=0.5).reduce(film(FILM))  # one of two cells
    assert result.reduction.group.tolist() == [0, 1, 2, -1, 3, -1, -1, 4]


def test_relative_counts_cells_but_drops_none_without_a_before() -> None:
    tokens = film([[0, 0, 0, 0], [0, 50, 0, 0]])
    pos = tokens.pos.clone()
    pos[-1, 2] = 9  # a cell that was not there
    result = DTD(relative=True, threshold=0.5).reduce(dataclasses.replace(tokens, pos=pos))
    assert result.reduction.group.tolist() == [0, 1, 2, 3, -1, 4, -1, 5]


@pytest.mark.parametrize(
    ("operator", "change"),
    [(DTD(space="pixel", threshold=0), 0.0), (DTD(relative=True, threshold=0), 0.5)],
    ids=repr,
)
def test_other_ways_to_drop_nothing(operator: DTD, change: float) -> None:
    tokens = film(FILM)
    signals = Signals(change=torch.full((tokens.num_tokens,), change))
    assert operator.reduce(tokens, signals).tokens.num_tokens == tokens.num_tokens


@pytest.mark.parametrize("operator", [DTD(), DTD(space="pixel", threshold=0.3)], ids=repr)
@given(
    lengths=st.lists(st.integers(0, 20), max_size=5),
    cut=st.integers(0, 5),
    seed=st.integers(0, 2**31),
)
@settings(deadline=None, max_examples=50)
def test_chunks_with_state_equal_one_pass(
    operator: DTD, lengths: list[int], cut: int, seed: int
) -> None:
    tokens = make_tokens(lengths, seed)
    signals = make_signals(tokens, seed)
    cut = min(cut, len(lengths))
    state: object | None = None
    places = []
    for first, last in ((0, cut), (cut, len(lengths))):
        part = signals_of(signals, tokens, first, last)
        result = operator.reduce(segments(tokens, first, last), part, state)
        state = result.state
        places.append(result.tokens.pos)
    assert torch.equal(torch.cat(places), operator.reduce(tokens, signals).tokens.pos)
