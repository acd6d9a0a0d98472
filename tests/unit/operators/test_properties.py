"""What holds for every operator of the matrix."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from operators import OPERATORS, PixelOperator, TokenOperator, Tokens

from .matrix import MATRIX

PIXEL = [o for row in MATRIX for o in row.settings if isinstance(o, PixelOperator)]
TOKEN = [o for row in MATRIX for o in row.settings if isinstance(o, TokenOperator)]
PIXEL_NEUTRAL = [row.neutral for row in MATRIX if isinstance(row.neutral, PixelOperator)]
TOKEN_NEUTRAL = [row.neutral for row in MATRIX if isinstance(row.neutral, TokenOperator)]

quick = settings(deadline=None, max_examples=25)


def test_matrix_has_every_operator_twice() -> None:
    assert {row.name for row in MATRIX} == set(OPERATORS)
    for row in MATRIX:
        assert all(type(o) is OPERATORS[row.name] for o in (*row.settings, row.neutral))
        assert row.settings[0] != row.settings[1]


def make_tokens(lengths: list[int], seed: int, dtype: torch.dtype = torch.float32) -> Tokens:
    generator = torch.Generator().manual_seed(seed)
    n = sum(lengths)
    place = torch.cat([torch.arange(length) for length in lengths] or [torch.arange(0)])
    tubelet = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths).long())
    return Tokens(
        data=torch.randn(n, 6, generator=generator).to(dtype),
        pos=torch.stack([tubelet, place // 4, place % 4], dim=1).int(),
        size=torch.randint(1, 5, (n,), generator=generator).float(),
        run=torch.randint(1, 9, (n,), generator=generator, dtype=torch.int32),
        offsets=torch.tensor([0, *lengths]).cumsum(0),
        deepstack=torch.randn(2, n, 3, generator=generator).to(dtype),
    )


def segment(tokens: Tokens, s: int) -> Tokens:
    start, end = int(tokens.offsets[s]), int(tokens.offsets[s + 1])
    return Tokens(
        data=tokens.data[start:end],
        pos=tokens.pos[start:end],
        size=tokens.size[start:end],
        run=tokens.run[start:end],
        offsets=torch.tensor([0, end - start]),
        deepstack=None if tokens.deepstack is None else tokens.deepstack[:, start:end],
    )


def tensors(value: object) -> dict[str, Tensor]:
    out = {}
    for field in dataclasses.fields(value):  # type: ignore[arg-type]
        item = getattr(value, field.name)
        if isinstance(item, Tensor):
            out[field.name] = item
        elif dataclasses.is_dataclass(item):
            out |= {f"{field.name}.{key}": tensor for key, tensor in tensors(item).items()}
    return out


def assert_equal(a: object, b: object) -> None:
    ours, theirs = tensors(a), tensors(b)
    assert ours.keys() == theirs.keys()
    for key, tensor in ours.items():
        assert tensor.dtype == theirs[key].dtype, key
        assert torch.equal(tensor, theirs[key]), key


token_batches = st.builds(
    make_tokens,
    lengths=st.lists(st.integers(0, 17), max_size=4),
    seed=st.integers(0, 2**31),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)


@pytest.mark.parametrize("operator", TOKEN, ids=repr)
@given(tokens=token_batches)
@quick
def test_size_is_conserved_in_each_segment(operator: TokenOperator, tokens: Tokens) -> None:
    reduced = operator.reduce(tokens)
    assert reduced.num_segments == tokens.num_segments
    for s in range(tokens.num_segments):
        assert segment(reduced, s).size.sum() == segment(tokens, s).size.sum()


@pytest.mark.parametrize("operator", TOKEN, ids=repr)
@given(tokens=token_batches)
@quick
def test_groups_are_dense_and_never_cross_segments(operator: TokenOperator, tokens: Tokens) -> None:
    plan = operator.plan(tokens)
    m = int(plan.offsets[-1])
    assert set(plan.group.tolist()) - {-1} == set(range(m))
    for s in range(tokens.num_segments):
        group = plan.group[tokens.offsets[s] : tokens.offsets[s + 1]]
        inside = (group >= plan.offsets[s]) & (group < plan.offsets[s + 1])
        assert (inside | (group == -1)).all()


@pytest.mark.parametrize("operator", TOKEN, ids=repr)
@given(tokens=token_batches)
@quick
def test_a_segment_alone_equals_it_in_a_batch(operator: TokenOperator, tokens: Tokens) -> None:
    reduced = operator.reduce(tokens)
    for s in range(tokens.num_segments):
        assert_equal(operator.reduce(segment(tokens, s)), segment(reduced, s))


@pytest.mark.parametrize("operator", TOKEN, ids=repr)
@given(tokens=token_batches)
@quick
def test_positions_and_runs_stay_within_their_sources(
    operator: TokenOperator, tokens: Tokens
) -> None:
    plan, reduced = operator.plan(tokens), operator.reduce(tokens)
    for slot in range(reduced.num_tokens):
        sources = plan.group == slot
        assert (reduced.pos[slot] >= tokens.pos[sources].amin(0)).all()
        assert (reduced.pos[slot] <= tokens.pos[sources].amax(0)).all()
        assert reduced.run[slot] == tokens.run[sources].min()


@pytest.mark.parametrize("operator", TOKEN_NEUTRAL, ids=repr)
@given(tokens=token_batches)
@quick
def test_neutral_settings_change_nothing(operator: TokenOperator, tokens: Tokens) -> None:
    assert_equal(operator.reduce(tokens), tokens)


@pytest.mark.parametrize("operator", TOKEN, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_input_is_untouched_and_dtype_device_and_result_stay(
    operator: TokenOperator, dtype: torch.dtype, device: str
) -> None:
    made = make_tokens([9, 0, 16, 1], seed=0, dtype=dtype)
    fields = {key: tensor.to(device) for key, tensor in tensors(made).items()}
    before = {key: tensor.clone() for key, tensor in fields.items()}
    tokens = Tokens(**fields)
    reduced = operator.reduce(tokens)
    for key, tensor in tensors(reduced).items():
        assert torch.equal(fields[key], before[key]), key
        assert tensor.dtype == fields[key].dtype, key
        assert tensor.device == fields[key].device, key
    assert_equal(operator.reduce(tokens), reduced)


def make_frames(tubelets: int, tubelet: int, seed: int) -> Tensor:
    """uint8 [T, 4, 6, 3], cells of 2; about half of them repeat the frame before."""
    generator = torch.Generator().manual_seed(seed)
    shape = (tubelets * tubelet, 4, 6, 3)
    frames = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    stays = torch.rand((shape[0], 2, 3), generator=generator) < 0.7
    stays = stays.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
    for t in range(1, shape[0]):
        frames[t, stays[t]] = frames[t - 1, stays[t]]
    return frames


videos = st.integers(1, 2).flatmap(
    lambda tubelet: st.tuples(
        st.just(tubelet),
        st.builds(
            make_frames,
            tubelets=st.integers(1, 6),
            tubelet=st.just(tubelet),
            seed=st.integers(0, 2**31),
        ),
    )
)


@pytest.mark.parametrize("operator", PIXEL, ids=repr)
@given(video=videos)
@quick
def test_a_first_tubelet_is_whole_and_runs_cover_the_video(
    operator: PixelOperator[object], video: tuple[int, Tensor]
) -> None:
    tubelet, frames = video
    selection = operator.select(frames, None, tubelet=tubelet, cell=2)
    assert selection.keep[0].all()
    assert (selection.run.sum(0) == len(frames) // tubelet).all()
    assert ((selection.run > 0) == selection.keep).all()


@pytest.mark.parametrize("operator", PIXEL_NEUTRAL, ids=repr)
@given(video=videos)
@quick
def test_neutral_settings_keep_everything(
    operator: PixelOperator[object], video: tuple[int, Tensor]
) -> None:
    tubelet, frames = video
    selection = operator.select(frames, None, tubelet=tubelet, cell=2)
    assert selection.keep.all()
    assert (selection.run == 1).all()


@pytest.mark.parametrize("operator", PIXEL, ids=repr)
def test_frames_are_untouched_and_device_and_result_stay(
    operator: PixelOperator[object], device: str
) -> None:
    frames = make_frames(4, 2, seed=0).to(device)
    before = frames.clone()
    selection = operator.select(frames, None, tubelet=2, cell=2)
    assert torch.equal(frames, before)
    assert {tensor.device for tensor in tensors(selection).values()} == {frames.device}
    assert_equal(operator.select(frames, None, tubelet=2, cell=2), selection)
    again = operator.select(frames, selection.state, tubelet=2, cell=2)
    assert_equal(operator.select(frames, selection.state, tubelet=2, cell=2), again)
