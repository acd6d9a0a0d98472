import pytest
import torch
from torch import Tensor

from operators import MissingSignal, ShapeError, Signals, Tokens
from operators.dtd import DTD
from operators.history import History, look_back, similarity

from .streams import make_tokens


def at(places: list[list[int]], data: list[float]) -> Tokens:
    """Tokens of one channel at (t, h, w), in the order of time."""
    pos = torch.tensor(places, dtype=torch.int32).view(-1, 3)
    n = len(pos)
    return Tokens(
        data=torch.tensor(data).float()[:, None],
        pos=pos,
        size=torch.ones(n),
        run=torch.ones(n, dtype=torch.int32),
        offsets=torch.tensor([0, n]),
    )


def seen(tokens: Tokens, history: History | None) -> list[float | None]:
    before, _ = look_back(tokens, history)
    pairs = zip(before.rows[before.index, 0].tolist(), before.known.tolist(), strict=True)
    return [value if known else None for value, known in pairs]


def test_the_one_before_at_the_same_cell() -> None:
    # cell (0, 1) is left out of t = 1, because it did not change
    tokens = at([[0, 0, 0], [0, 0, 1], [1, 0, 0], [2, 0, 0], [2, 0, 1]], [1, 2, 3, 4, 5])
    assert seen(tokens, None) == [None, None, 1, 3, 2]


def test_the_one_before_may_be_of_an_earlier_chunk() -> None:
    _, history = look_back(at([[0, 0, 0], [0, 0, 1], [1, 0, 0]], [1, 2, 3]), None)
    tokens = at([[2, 0, 1], [2, 1, 0], [3, 0, 0], [3, 0, 1]], [4, 5, 6, 7])
    assert seen(tokens, history) == [2, None, 3, 4]
    _, later = look_back(tokens, history)
    assert later.data[:, 0].tolist() == [6, 7, 5]  # by cell: (0, 0), (0, 1), (1, 0)


def test_of_several_at_a_cell_the_last_is_remembered() -> None:
    tokens = at([[0, 0, 0], [0, 0, 0], [1, 0, 0]], [1, 2, 3])
    assert seen(tokens, None) == [None, None, 2]


def test_similarity_by_hand() -> None:
    tokens = at([[0, 0, 0], [1, 0, 0], [2, 0, 0], [3, 0, 0]], [2, 5, -1, 0])
    before, _ = look_back(tokens, None)
    assert similarity(tokens, before).tolist() == [1, 1, -1, 0]


def test_a_state_of_another_stream_fails() -> None:
    tokens = make_tokens([3], seed=0)
    _, history = look_back(at([[0, 0, 0]], [1.0]), None)
    with pytest.raises(ShapeError, match=r"width 1 is not of the stream .* state=None"):
        DTD().reduce(tokens, state=history)
    with pytest.raises(ShapeError, match="the state is a str; give what reduce returned"):
        DTD().reduce(tokens, state="state")


@pytest.mark.parametrize("change", [None, torch.zeros(2)], ids=["none", "too few"])
def test_signals_that_are_missing_or_not_of_these_tokens_fail(change: Tensor | None) -> None:
    error, message = (
        (MissingSignal, r"dtd needs the signal 'change'; given are: none")
        if change is None
        else (ShapeError, r"dtd: Signals\(.*\) are not those of Tokens\(")
    )
    with pytest.raises(error, match=message):
        DTD(space="pixel").reduce(make_tokens([3], seed=0), Signals(change=change))
