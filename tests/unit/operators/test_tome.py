import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from operators import BadParameter, Tokens, build
from operators.tome import ToMe

from .streams import assert_equal, make_tokens


def square(data: list[list[float]], size: list[float]) -> Tokens:
    """Four tokens of one tubelet in 2 x 2 cells."""
    return Tokens(
        data=torch.tensor(data),
        pos=torch.tensor([[7, 0, 0], [7, 0, 1], [7, 1, 0], [7, 1, 1]], dtype=torch.int32),
        size=torch.tensor(size, dtype=torch.float32),
        run=torch.tensor([4, 3, 2, 1], dtype=torch.int32),
        offsets=torch.tensor([0, 4]),
        deepstack=torch.tensor([[[0.0], [10.0], [20.0], [40.0]]]),
    )


def test_four_tokens_by_hand() -> None:
    # A = 0, 2; B = 1, 3. Cosines: 0-3 is 1, 2-1 is 0.8, so 0 goes first, into 3.
    tokens = square([[2.0, 0.0], [0.0, 5.0], [3.0, 4.0], [6.0, 0.0]], [1, 1, 1, 3])
    three = ToMe(keep=0.75).reduce(tokens).tokens
    assert three.data.tolist() == [[0.0, 5.0], [3.0, 4.0], [5.0, 0.0]]
    assert three.pos.tolist() == [[7, 0, 1], [7, 1, 0], [7, 0, 0]]  # mean (7, .75, .75)
    assert three.size.tolist() == [1, 1, 4]
    assert three.run.tolist() == [3, 2, 1]
    assert three.deepstack is not None
    assert three.deepstack.tolist() == [[[10.0], [20.0], [30.0]]]
    two = ToMe(keep=0.5).reduce(tokens).tokens
    assert two.data.tolist() == [[1.5, 4.5], [5.0, 0.0]]
    assert two.size.tolist() == [2, 4]
    one = ToMe(keep=0.25).reduce(tokens).tokens
    # ((1.5, 4.5) * 2 + (5, 0) * 4) / 6; shares of a sixth are rounded
    torch.testing.assert_close(one.data, torch.tensor([[23 / 6, 1.5]]), rtol=1e-6, atol=0)
    assert one.pos.tolist() == [[7, 0, 0]]  # mean (7, 4/6, 4/6)
    assert one.size.tolist() == [6]
    assert one.run.tolist() == [1]


@given(
    keep=st.floats(0.01, 1),
    lengths=st.lists(st.integers(0, 40), max_size=3),
    seed=st.integers(0, 2**31),
)
@settings(deadline=None, max_examples=50)
def test_count_is_the_rounded_fraction(keep: float, lengths: list[int], seed: int) -> None:
    reduced = ToMe(keep=keep).reduce(make_tokens(lengths, seed)).tokens
    expected = [min(length, max(1, round(length * keep))) for length in lengths]
    assert reduced.offsets.diff().tolist() == expected


def test_equal_tokens_merge_into_one_giant() -> None:
    tokens = square([[1.0, 1.0, 1.0, 1.0]] * 4, [1, 1, 1, 1])  # norm 2: cosines are exact ties
    reduced = ToMe(keep=0.5).reduce(tokens).tokens
    assert reduced.size.tolist() == [3, 1]
    assert reduced.pos.tolist() == [[7, 0, 0], [7, 1, 1]]


def test_nan_tokens_never_merge_and_the_rest_does() -> None:
    nan = float("nan")
    tokens = square([[nan, 0.0], [nan, 1.0], [1.0, 0.0], [1.0, 0.0]], [1, 1, 1, 1])
    reduced = ToMe(keep=0.25).reduce(tokens).tokens
    assert reduced.size.tolist() == [1, 1, 2]
    assert reduced.data.isnan().any(1).tolist() == [True, True, False]


def test_without_deepstack() -> None:
    tokens = make_tokens([9, 4], seed=1)
    bare = Tokens(
        data=tokens.data, pos=tokens.pos, size=tokens.size, run=tokens.run, offsets=tokens.offsets
    )
    reduced = ToMe().reduce(bare).tokens
    assert reduced.deepstack is None
    assert torch.equal(reduced.data, ToMe().reduce(tokens).tokens.data)
    assert_equal(ToMe(keep=1).reduce(bare).tokens, bare)


def test_attention_to_what_is_merged_grows_with_its_size() -> None:
    assert ToMe().proportional
    assert not ToMe(proportional=False).proportional


@pytest.mark.parametrize(
    "keep", [0, 1.5, -1, math.nan, math.inf, "0.5", True, None, [0.5]], ids=repr
)
def test_bad_keep_fails(keep: object) -> None:
    with pytest.raises(BadParameter) as caught:
        build("tome", {"keep": keep})
    assert str(caught.value) == (
        f"tome.keep: {keep!r} is not a number in (0, 1]; "
        "keep is the fraction of tokens kept, e.g. 0.25"
    )
