import pytest
import torch

from operators import Signals, Tokens
from operators.prumerge import PruMerge, leaders, merging, outliers, spread

from .streams import make_signals, make_tokens


def row(data: list[float], size: list[float]) -> Tokens:
    n = len(data)
    pos = torch.zeros(n, 3, dtype=torch.int32)
    pos[:, 2] = torch.arange(n)
    return Tokens(
        data=torch.tensor(data).float()[:, None],
        pos=pos,
        size=torch.tensor(size).float(),
        run=torch.arange(n, 0, -1, dtype=torch.int32),
        offsets=torch.tensor([0, n]),
    )


# One of six stands out, and 3 has the key nearest to it.
ATTENTION = torch.tensor([0.125, 0.125, 4.0, 0.125, 0.25, 0.0])
KEYS = torch.tensor([[0.0, 1.0], [-1.0, 0.0], [1.0, 0.0], [4.0, 1.0], [0.0, -1.0], [-1.0, 1.0]])
SIGNALS = Signals(attention=ATTENTION, keys=KEYS)
ROW = row([1, 2, 3, 8, 16, 32], [1, 1, 1, 1, 2, 1])


def test_one_of_six_by_hand() -> None:
    result = PruMerge(neighbors=1).reduce(ROW, SIGNALS)
    # 3 + 8/8, and 1/8 + 2/8 + 8/8 + 16/4 + 0
    assert result.tokens.data.flatten().tolist() == [4, 5.375]
    assert result.tokens.size.tolist() == [1, 6]
    assert result.tokens.pos[:, 2].tolist() == [2, 2]  # (0 + 1 + 3 + 4·2 + 5) / 6 is 2.8
    assert result.tokens.run.tolist() == [4, 1]
    assert result.signals.attention is not None
    assert result.signals.attention.tolist() == [4, 0.625]


def test_plus_adds_evenly_spaced_ones() -> None:
    result = PruMerge(plus=True, neighbors=0).reduce(ROW, SIGNALS)
    # one in six: steps of two, from 0 on, never the last
    assert result.reduction.group.tolist() == [1, 3, 0, 3, 2, 3]
    ordered = PruMerge(plus=True, neighbors=0, order="raster").reduce(ROW, SIGNALS)
    assert ordered.reduction.group.tolist() == [0, 3, 1, 3, 2, 3]


def test_a_fixed_ratio() -> None:
    group = PruMerge(ratio=0.34).reduce(ROW, SIGNALS).reduction.group
    assert group.tolist() == [2, 2, 0, 2, 1, 2]
    # one in two: in the middle of each step, and 4 is there already
    plus = PruMerge(ratio=0.5, plus=True).reduce(ROW, SIGNALS).reduction.group
    assert plus.tolist() == [2, 3, 0, 4, 1, 5]


@pytest.mark.parametrize(
    ("plus", "attention", "kept"),
    [(False, 1.0, 1), (True, 1.0, 4), (False, torch.nan, 2), (True, torch.nan, 4)],
)
def test_where_attention_decides_nothing(plus: bool, attention: float, kept: int) -> None:
    tokens = make_tokens([16], seed=0)
    keys = make_signals(tokens).keys
    signals = Signals(attention=torch.full((16,), attention), keys=keys)
    result = PruMerge(plus=plus).reduce(tokens, signals)
    assert result.tokens.num_tokens == kept + 1
    assert not result.tokens.data.isnan().any()


def test_with_nothing_left_over_there_is_no_last_token() -> None:
    tokens = make_tokens([1, 0, 5], seed=0)
    result = PruMerge(ratio=1).reduce(tokens, make_signals(tokens))
    assert result.tokens.offsets.tolist() == tokens.offsets.tolist()
    alone = make_tokens([1], seed=0)
    assert torch.equal(PruMerge().reduce(alone, make_signals(alone)).tokens.data, alone.data)


def test_its_parts() -> None:
    assert outliers(ATTENTION) == 1
    assert outliers(torch.stack([ATTENTION, ATTENTION])) == 2
    assert leaders(torch.tensor([1.0, torch.nan, 3.0, 3.0]), 3).tolist() == [2, 3, 0]
    assert spread(16, 8, adaptive=False).tolist() == [4, 12]
    assert spread(16, 9, adaptive=True).tolist() == [0, 3, 6, 9, 12]
    assert spread(1, 8, adaptive=False).tolist() == []


def test_an_entry_that_comes_twice_is_its_own_neighbour() -> None:
    places = torch.tensor([2, 2]), torch.tensor([0, 1, 3, 4, 5])
    mixing = merging(ATTENTION, KEYS, *places, neighbors=1)
    assert mixing.slot.tolist() == [0, 1, 0, 1, 2, 2, 2, 2, 2]
    assert mixing.source.tolist() == [2, 2, 2, 2, 0, 1, 3, 4, 5]
    assert mixing.weight[:4].tolist() == [1, 1, 4, 4]
