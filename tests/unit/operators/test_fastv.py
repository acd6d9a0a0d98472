import pytest
import torch

from operators import BadParameter, Signals, build
from operators.fastv import FastV

from .streams import make_tokens


def test_the_most_attended_stay_in_order() -> None:
    tokens = make_tokens([5, 3], seed=0)
    attention = torch.tensor([0.1, 0.3, 0.05, 0.2, 0.3, 0.4, 0.0, 0.4])
    result = FastV(drop=0.5).reduce(tokens, Signals(attention=attention))
    # halves to even: 2 of 5 (2.5) and 2 of 3 (1.5)
    assert result.reduction.group.tolist() == [-1, 0, -1, -1, 1, 2, -1, 3]
    assert torch.equal(result.tokens.pos, tokens.pos[[1, 4, 5, 7]])


def test_of_equals_the_earlier_stay() -> None:
    tokens = make_tokens([6], seed=0)
    result = FastV(drop=0.5).reduce(tokens, Signals(attention=torch.ones(6)))
    assert result.reduction.group.tolist() == [0, 1, 2, -1, -1, -1]


def test_everything_may_go() -> None:
    tokens = make_tokens([6], seed=0)
    assert FastV(drop=1).reduce(tokens, Signals(attention=torch.ones(6))).tokens.num_tokens == 0


def test_it_says_where_it_reduces() -> None:
    assert FastV(layer=3).layers == (3,)
    with pytest.raises(BadParameter, match=r"fastv\.layer: 0 is not a whole number in \[1, inf\)"):
        build("fastv", {"layer": 0})
