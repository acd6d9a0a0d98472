import dataclasses

import pytest
import torch
from torch import Tensor

import operators
from operators import Mixing, Reduction, ShapeError, Signals, apply
from operators.plan import compose, identity, merge_into

from .streams import assert_equal, make_signals, make_tokens


def test_all_is_true() -> None:
    assert all(hasattr(operators, name) for name in operators.__all__)


def test_repr_shows_shapes() -> None:
    assert repr(make_tokens([2, 1], seed=0)) == (
        "Tokens(data=float32[3, 6], pos=int32[3, 3], size=float32[3], run=int32[3], "
        "offsets=int64[3], deepstack=float32[2, 3, 3])"
    )


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("data", torch.zeros(3, dtype=torch.int64), r"data must be floating \[N, D\]"),
        ("pos", torch.zeros(3, 3), r"pos must be int32\[3, 3\]"),
        ("size", torch.ones(2), r"size must be float32\[3\]"),
        ("size", torch.tensor([1.0, 0.0, 1.0]), "every size must be > 0"),
        ("size", torch.tensor([1.0, torch.nan, 1.0]), "every size must be > 0"),
        ("run", torch.ones(3), r"run must be int32\[3\]"),
        ("offsets", torch.tensor([0, 2]), r"\[0, 2\] must run from 0 to 3"),
        ("offsets", torch.tensor([0, 4, 3]), "must run from 0 to 3 and not decrease"),
        ("offsets", torch.tensor([0.0, 3.0]), r"offsets must be int64 \[S\+1\]"),
        ("deepstack", torch.zeros(2, 4, 3), r"deepstack must be floating \[L, 3, D\]"),
        (
            "run",
            torch.ones(3, dtype=torch.int32, device="meta"),
            r"are on \['cpu', 'meta'\]",
        ),
    ],
    ids=str,
)
def test_tokens_that_do_not_fit_fail(field: str, value: Tensor, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        dataclasses.replace(make_tokens([2, 1], seed=0), **{field: value})


def test_reduction_that_does_not_fit_fails() -> None:
    tokens = make_tokens([2, 1], seed=0)
    with pytest.raises(ShapeError, match=r"group must be int64 \[N\]"):
        Reduction(group=torch.zeros(3), weight=tokens.size, offsets=tokens.offsets)
    with pytest.raises(ShapeError, match=r"weight must be float32\[3\]"):
        Reduction(group=torch.arange(3), weight=tokens.size[:2], offsets=tokens.offsets)
    other = make_tokens([1, 1], seed=0)
    with pytest.raises(ShapeError, match="does not fit"):
        apply(tokens, Signals(), identity(other.size, other.offsets))


def test_identity_changes_nothing() -> None:
    tokens = make_tokens([3, 0, 2], seed=0)
    signals = make_signals(tokens)
    same, still = apply(tokens, signals, identity(tokens.size, tokens.offsets))
    assert_equal(same, tokens)
    assert_equal(still, signals)


def test_dropped_tokens_leave_no_trace() -> None:
    tokens = make_tokens([3], seed=0)
    data = tokens.data.clone()
    data[1] = torch.nan
    plan = Reduction(
        group=torch.tensor([0, -1, 1]), weight=tokens.size, offsets=torch.tensor([0, 2])
    )
    reduced, _ = apply(dataclasses.replace(tokens, data=data), Signals(), plan)
    assert torch.equal(reduced.data, data[[0, 2]])
    assert torch.equal(reduced.pos, tokens.pos[[0, 2]])
    assert torch.equal(reduced.run, tokens.run[[0, 2]])


def test_position_rounds_down_by_weight() -> None:
    row = torch.tensor([[0, 0, 0], [0, 0, 1], [0, 0, 2]], dtype=torch.int32)
    tokens = dataclasses.replace(make_tokens([3], seed=0), pos=row)
    plan = merge_into(torch.tensor([1, 1, 1]), torch.tensor([1.0, 1.0, 1.0]), tokens.offsets)
    assert apply(tokens, Signals(), plan)[0].pos.tolist() == [[0, 0, 1]]
    # Weights that are not whole must not push a common place below itself.
    at = torch.tensor([[5, 5, 5]] * 3, dtype=torch.int32)
    uneven = merge_into(torch.tensor([1, 1, 1]), torch.tensor([0.1, 0.2, 0.7]), tokens.offsets)
    together, _ = apply(dataclasses.replace(tokens, pos=at), Signals(), uneven)
    assert together.pos.tolist() == [[5, 5, 5]]


def test_merge_into_keeps_order_and_compose_chains() -> None:
    size = torch.ones(5)
    first = merge_into(torch.tensor([1, 1, 2, 2, 4]), size, torch.tensor([0, 2, 5]))
    assert first.group.tolist() == [0, 0, 1, 1, 2]
    assert first.offsets.tolist() == [0, 1, 3]
    second = Reduction(
        group=torch.tensor([-1, 0, 0]), weight=torch.ones(3), offsets=torch.tensor([0, 0, 1])
    )
    both = compose(first, second)
    assert both.group.tolist() == [-1, -1, 0, 0, 0]
    assert both.offsets.tolist() == [0, 0, 1]
    dropped = Reduction(
        group=torch.tensor([0, -1, 0, -1, 1]), weight=size, offsets=torch.tensor([0, 1, 2])
    )
    kept = identity(torch.ones(2), torch.tensor([0, 1, 2]))
    assert compose(dropped, kept).group.tolist() == [0, -1, 0, -1, 1]


def test_signals_are_reduced_with_their_tokens() -> None:
    tokens = make_tokens([3], seed=0)
    signals = Signals(
        attention=torch.tensor([0.125, 0.25, 0.5]),
        keys=torch.tensor([[0.0], [4.0], [7.0]]),
        change=torch.tensor([0.5, 0.25, torch.inf]),
    )
    plan = merge_into(torch.tensor([1, 1, 2]), torch.tensor([1.0, 3.0, 1.0]), tokens.offsets)
    _, left = apply(tokens, signals, plan)
    assert left.attention is not None
    assert left.keys is not None
    assert left.change is not None
    assert left.attention.tolist() == [0.375, 0.5]
    assert left.keys.tolist() == [[3.0], [7.0]]
    assert left.change.tolist() == [0.5, torch.inf]


def test_mixing_by_hand() -> None:
    tokens = dataclasses.replace(
        make_tokens([3], seed=0), data=torch.tensor([[1.0], [10.0], [100.0]]).bfloat16()
    )
    mixing = Mixing(
        slot=torch.tensor([1, 0, 1]),
        source=torch.tensor([2, 0, 1]),
        weight=torch.tensor([0.5, 1.0, 2.0]),
    )
    plan = Reduction(
        group=torch.tensor([0, 1, 1]),
        weight=tokens.size,
        offsets=torch.tensor([0, 2]),
        mixing=mixing,
    )
    reduced, _ = apply(tokens, Signals(), plan)
    assert reduced.data.tolist() == [[1.0], [70.0]]
    assert reduced.data.dtype == torch.bfloat16
    assert reduced.size[1] == tokens.size[1:].sum()


def test_signals_and_mixing_that_do_not_fit_fail() -> None:
    with pytest.raises(ShapeError, match=r"attention must be float32 of 1 dimension"):
        Signals(attention=torch.zeros(2, dtype=torch.bfloat16))
    with pytest.raises(ShapeError, match=r"keys must be float32 of 2 dimension"):
        Signals(keys=torch.zeros(2))
    with pytest.raises(ShapeError, match="different numbers of tokens"):
        Signals(attention=torch.zeros(2), change=torch.zeros(3))
    slot = torch.arange(2)
    with pytest.raises(ShapeError, match=r"source must be int64\[2\]"):
        Mixing(slot=slot, source=torch.arange(3), weight=torch.ones(2))
    with pytest.raises(ShapeError, match=r"weight must be float32\[2\]"):
        Mixing(slot=slot, source=slot, weight=torch.ones(2).double())
