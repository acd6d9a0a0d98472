"""What holds for every operator of the matrix that reduces tokens, in the LLM too."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from operators import History, Scorer, Signals, TemporalPlanner, TokenOperator, Tokens

from .matrix import configured, neutral
from .streams import assert_equal, make_signals, make_tokens, segments, signals_of, tensors

TOKEN = [operator for operator in configured() if isinstance(operator, TokenOperator)]
TEMPORAL = [operator for operator in TOKEN if isinstance(operator, TemporalPlanner)]
ALONE = [operator for operator in TOKEN if not operator.temporal]
SCORERS = [operator for operator in TOKEN if isinstance(operator, Scorer)]
NEUTRAL = [operator for operator in neutral() if isinstance(operator, TokenOperator)]

quick = settings(deadline=None, max_examples=25)

batches = st.builds(
    make_tokens,
    lengths=st.lists(st.integers(0, 17), max_size=4),
    seed=st.integers(0, 2**31),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)


@pytest.mark.parametrize("operator", TOKEN, ids=repr)
@given(tokens=batches)
@quick
def test_size_is_conserved_but_for_what_is_dropped(operator: TokenOperator, tokens: Tokens) -> None:
    result = operator.reduce(tokens, make_signals(tokens))
    assert result.tokens.num_segments == tokens.num_segments
    left = tokens.size.where(result.reduction.group >= 0, 0)
    for s in range(tokens.num_segments):
        given_ = left[tokens.offsets[s] : tokens.offsets[s + 1]].sum()
        assert segments(result.tokens, s, s + 1).size.sum() == given_


@pytest.mark.parametrize("operator", TOKEN, ids=repr)
@given(tokens=batches)
@quick
def test_groups_are_dense_and_never_cross_segments(operator: TokenOperator, tokens: Tokens) -> None:
    plan = operator.reduce(tokens, make_signals(tokens)).reduction
    m = int(plan.offsets[-1])
    assert set(plan.group.tolist()) - {-1} == set(range(m))
    for s in range(tokens.num_segments):
        group = plan.group[tokens.offsets[s] : tokens.offsets[s + 1]]
        inside = (group >= plan.offsets[s]) & (group < plan.offsets[s + 1])
        assert (inside | (group == -1)).all()


@pytest.mark.parametrize("operator", TOKEN, ids=repr)
@given(tokens=batches)
@quick
def test_positions_and_runs_stay_within_their_sources(
    operator: TokenOperator, tokens: Tokens
) -> None:
    result = operator.reduce(tokens, make_signals(tokens))
    for slot in range(result.tokens.num_tokens):
        sources = result.reduction.group == slot
        assert (result.tokens.pos[slot] >= tokens.pos[sources].amin(0)).all()
        assert (result.tokens.pos[slot] <= tokens.pos[sources].amax(0)).all()
        assert result.tokens.run[slot] == tokens.run[sources].min()


@pytest.mark.parametrize("operator", TOKEN, ids=repr)
@given(tokens=batches)
@quick
def test_signals_are_those_of_what_is_left(operator: TokenOperator, tokens: Tokens) -> None:
    signals = make_signals(tokens)
    result = operator.reduce(tokens, signals)
    assert result.signals.present == signals.present
    assert result.signals.attention is not None
    assert signals.attention is not None
    assert len(result.signals.attention) == result.tokens.num_tokens
    for slot in range(result.tokens.num_tokens):
        # a share is a sum of shares, in another order
        total = signals.attention[result.reduction.group == slot].sum()
        torch.testing.assert_close(result.signals.attention[slot], total)
    only = Signals(**{name: getattr(signals, name) for name in operator.needs})
    assert operator.reduce(tokens, only).signals.present == operator.needs


@pytest.mark.parametrize("operator", ALONE, ids=repr)
@given(tokens=batches)
@quick
def test_a_segment_alone_equals_it_in_a_batch(operator: TokenOperator, tokens: Tokens) -> None:
    signals = make_signals(tokens)
    result = operator.reduce(tokens, signals)
    assert result.state is None
    for s in range(tokens.num_segments):
        alone = operator.reduce(segments(tokens, s, s + 1), signals_of(signals, tokens, s, s + 1))
        assert_equal(alone.tokens, segments(result.tokens, s, s + 1))


@pytest.mark.parametrize("operator", TEMPORAL, ids=repr)
@given(tokens=batches, cut=st.integers(0, 4))
@quick
def test_a_chunk_leaves_what_one_pass_leaves(
    operator: TokenOperator, tokens: Tokens, cut: int
) -> None:
    signals = make_signals(tokens)
    cut = min(cut, tokens.num_segments)
    state: object | None = None
    for first, last in ((0, cut), (cut, tokens.num_segments)):
        part = segments(tokens, first, last)
        state = operator.reduce(part, signals_of(signals, tokens, first, last), state).state
    assert isinstance(state, History)
    assert_equal(state, operator.reduce(tokens, signals).state)


@pytest.mark.parametrize("operator", TEMPORAL, ids=repr)
@given(tokens=batches)
@quick
def test_what_has_nothing_before_it_stays(operator: TokenOperator, tokens: Tokens) -> None:
    kept = operator.reduce(tokens, make_signals(tokens)).reduction.group >= 0
    seen = set()
    for place, stays in zip(tokens.pos[:, 1:].tolist(), kept.tolist(), strict=True):
        assert stays or tuple(place) in seen
        seen.add(tuple(place))


@pytest.mark.parametrize("operator", SCORERS, ids=repr)
@given(tokens=batches)
@quick
def test_the_budget_is_what_is_left(operator: Scorer, tokens: Tokens) -> None:
    result = operator.reduce(tokens, make_signals(tokens))
    assert torch.equal(result.tokens.offsets.diff(), operator.budget(tokens.offsets.diff()))


@pytest.mark.parametrize("operator", NEUTRAL, ids=repr)
@given(tokens=batches)
@quick
def test_neutral_settings_change_nothing(operator: TokenOperator, tokens: Tokens) -> None:
    signals = make_signals(tokens)
    result = operator.reduce(tokens, signals)
    assert_equal(result.tokens, tokens)
    assert_equal(result.signals, signals)


@pytest.mark.parametrize("operator", TOKEN, ids=repr)
@given(tokens=batches, seed=st.integers(0, 2**31))
@quick
def test_nan_stops_nothing(operator: TokenOperator, tokens: Tokens, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)

    def spoilt(tensor: torch.Tensor) -> torch.Tensor:
        hit = torch.rand(tokens.num_tokens, generator=generator) < 0.3
        return tensor.masked_fill(hit.view(-1, *[1] * (tensor.ndim - 1)), torch.nan)

    signals = make_signals(tokens)
    spoilt_signals = Signals(**{name: spoilt(tensor) for name, tensor in tensors(signals).items()})
    result = operator.reduce(dataclasses.replace(tokens, data=spoilt(tokens.data)), spoilt_signals)
    assert set(result.reduction.group.tolist()) - {-1} == set(range(result.tokens.num_tokens))


@pytest.mark.parametrize("operator", TOKEN, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_input_is_untouched_and_dtype_device_and_result_stay(
    operator: TokenOperator, dtype: torch.dtype, device: str
) -> None:
    made = make_tokens([9, 0, 16, 1], seed=0, dtype=dtype)
    tokens = Tokens(**{key: tensor.to(device) for key, tensor in tensors(made).items()})
    told = tensors(make_signals(made))
    signals = Signals(**{key: tensor.to(device) for key, tensor in told.items()})
    given_ = tensors(tokens) | tensors(signals)
    before = {key: tensor.clone() for key, tensor in given_.items()}
    result = operator.reduce(tokens, signals)
    for key, tensor in (tensors(result.tokens) | tensors(result.signals)).items():
        assert torch.equal(given_[key], before[key]), key
        assert tensor.dtype == given_[key].dtype, key
        assert tensor.device == given_[key].device, key
    assert_equal(operator.reduce(tokens, signals), result)
    again = operator.reduce(tokens, signals, result.state)
    assert_equal(operator.reduce(tokens, signals, result.state), again)
