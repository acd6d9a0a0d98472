import math
from dataclasses import fields
from functools import partial
from typing import Literal

import pytest
import torch
from torch import Tensor

from kernels import RunLength, implementation, run_length

Anchor = Literal["prev", "head"]


def video(*shape: int, seed: int = 0) -> Tensor:
    """Noise in which about half of the pixels of a frame repeat the frame before."""
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    stays = torch.rand(shape[1:4], generator=generator) < 0.5
    for t in range(1, shape[1]):
        frames[:, t, stays[t]] = frames[:, t - 1, stays[t]]
    return frames


def grey(levels: list[list[int]], device: str) -> Tensor:
    """One row of one-pixel cells per frame -> uint8 [1, T, 1, W, 3]"""
    frames = torch.tensor(levels, dtype=torch.uint8, device=device)
    return frames[None, :, None, :, None].expand(-1, -1, -1, -1, 3)


def assert_same(a: RunLength, b: RunLength) -> None:
    # Exact: sums are integers, and what follows them rounds alike in all.
    for field in fields(RunLength):
        actual, expected = getattr(a, field.name).cpu(), getattr(b, field.name).cpu()
        assert actual.dtype == expected.dtype, field.name
        assert torch.equal(actual, expected), field.name


def test_one_pixel_by_hand(device: str) -> None:
    # One frame per tubelet. Right: +51, same, -51.
    frames = grey([[10, 10], [10, 61], [10, 61], [10, 10]], device)
    result = run_length(frames, tubelet=1, cell=1, threshold=0.1)
    assert result.keep[0, :, 0].tolist() == [
        [True, True],
        [False, True],
        [False, False],
        [False, True],
    ]
    assert result.run[0, :, 0].tolist() == [[4, 1], [0, 2], [0, 0], [0, 1]]
    assert result.index.tolist() == [0, 1, 3, 7, -1, -1, -1, -1]
    assert result.count.item() == 4
    assert result.open_run.tolist() == [[[4, 1]]]
    assert result.front[0, 0].tolist() == [[10, 10, 10], [10, 10, 10]]
    moved = 0.2 * (1 / 0.229 + 1 / 0.224 + 1 / 0.225) / 3  # 0.885
    assert result.distance[0, 0, 0].tolist() == [math.inf, math.inf]
    # fp32 rounding of three products
    assert result.distance[0, 1:, 0, 1].tolist() == pytest.approx([moved, 0, moved], rel=1e-6)
    assert result.distance[0, 1:, 0, 0].tolist() == [0, 0, 0]


def test_last_frame_is_compared_with_the_first_of_the_tubelet_before(device: str) -> None:
    frames = torch.zeros(1, 6, 2, 2, 3, dtype=torch.uint8, device=device)
    frames[:, 2] = 200  # a flash in the first frame of tubelet 1
    plain = run_length(frames, tubelet=2, cell=2, threshold=0.1)
    assert plain.keep.flatten().tolist() == [True, False, True]
    symmetric = run_length(frames, tubelet=2, cell=2, threshold=0.1, symmetric=True)
    assert symmetric.keep.flatten().tolist() == [True, True, True]


def test_slow_drift_adds_up_against_the_head_by_hand(device: str) -> None:
    # 0.1 is 5.76 grey levels. Left drifts by 4 a tubelet, right steps once.
    frames = grey([[0, 0], [4, 50], [8, 50], [12, 50], [16, 50]], device)
    prev = run_length(frames, tubelet=1, cell=1, threshold=0.1)
    assert prev.keep[0, :, 0].int().tolist() == [[1, 1], [0, 1], [0, 0], [0, 0], [0, 0]]
    assert prev.front[0, 0, :, 0].tolist() == [16, 50]
    head = run_length(frames, tubelet=1, cell=1, threshold=0.1, anchor="head")
    assert head.keep[0, :, 0].int().tolist() == [[1, 1], [0, 1], [1, 0], [0, 0], [1, 0]]
    assert head.run[0, :, 0].tolist() == [[2, 1], [0, 4], [2, 0], [0, 0], [1, 0]]
    assert head.open_run.tolist() == [[[1, 4]]]
    # each cell as it was at the head of its run
    assert head.front[0, 0, :, 0].tolist() == [16, 50]
    early = run_length(frames[:, :4], tubelet=1, cell=1, threshold=0.1, anchor="head")
    assert early.front[0, 0, :, 0].tolist() == [8, 50]


def test_refresh_ends_a_run_by_hand(device: str) -> None:
    still = grey([[7]] * 5, device)
    call = partial(run_length, still, tubelet=1, cell=1, threshold=0.1, refresh=2)
    first = call()
    assert first.run.flatten().tolist() == [2, 0, 2, 0, 1]
    assert first.distance.flatten().tolist() == [math.inf, 0, 0, 0, 0]
    then = call(front=first.front, open_run=first.open_run)
    assert then.run.flatten().tolist() == [0, 2, 0, 2, 0]
    assert then.open_run.item() == 2


@pytest.mark.parametrize("anchor", ["prev", "head"])
def test_a_cell_without_an_open_run_starts_afresh(device: str, anchor: Anchor) -> None:
    still = grey([[7, 7], [7, 7]], device)
    open_run = torch.tensor([[[0, 3]]], dtype=torch.int32, device=device)
    result = run_length(
        still,
        tubelet=1,
        cell=1,
        threshold=0.1,
        front=still[:, 0],
        open_run=open_run,
        anchor=anchor,
    )
    assert result.run[0, :, 0].tolist() == [[2, 0], [0, 0]]
    assert result.open_run.tolist() == [[[2, 5]]]
    assert result.distance[0, :, 0].tolist() == [[math.inf, 0], [0, 0]]


SHAPES = [
    ((1, 1, 1, 1, 3), 1, 1),
    ((2, 6, 12, 8, 3), 2, 4),
    ((1, 8, 15, 10, 3), 4, 5),
    ((1, 3, 8, 16, 3), 1, 8),  # several loads per cell
    ((1, 2, 2, 6, 3), 1, 1),  # several blocks of places
]


@pytest.mark.parametrize(
    ("anchor", "symmetric", "refresh"),
    [("prev", False, None), ("prev", True, 2), ("head", False, 1), ("head", True, None)],
    ids=str,
)
@pytest.mark.parametrize(("shape", "tubelet", "cell"), SHAPES, ids=str)
def test_equals_reference(
    device: str,
    shape: tuple[int, ...],
    tubelet: int,
    cell: int,
    anchor: Anchor,
    symmetric: bool,
    refresh: int | None,
    small_blocks: None,
) -> None:
    frames = video(*shape)
    front = video(shape[0], 1, *shape[2:], seed=1)[:, 0]
    grid = (shape[0], shape[2] // cell, shape[3] // cell)
    generator = torch.Generator().manual_seed(2)
    open_run = torch.randint(0, 3, grid, dtype=torch.int32, generator=generator)
    for before in (None, (front, open_run)):

        def on(target: str, before: tuple[Tensor, Tensor] | None = before) -> RunLength:
            return run_length(
                frames.to(target),
                tubelet=tubelet,
                cell=cell,
                threshold=1.0,
                front=before[0].to(target) if before else None,
                open_run=before[1].to(target) if before else None,
                anchor=anchor,
                refresh=refresh,
                symmetric=symmetric,
            )

        with implementation("reference"):
            expected = on("cpu")
        assert_same(on(device), expected)


@pytest.fixture
def small_blocks(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small inputs take several blocks."""
    from kernels._dispatch import choose

    if choose(torch.zeros(1, device=device), native=True) == "triton":
        from kernels.run_length import kernel

        monkeypatch.setattr(kernel, "PIXEL_BLOCK", 64)
        monkeypatch.setattr(kernel, "INDEX_BLOCK", 4)
        monkeypatch.setattr(kernel, "COUNT_BLOCK", 2)


@pytest.mark.parametrize("refresh", [None, 3])
@pytest.mark.parametrize("anchor", ["prev", "head"])
def test_chunks_equal_one_call(device: str, anchor: Anchor, refresh: int | None) -> None:
    frames = video(2, 12, 4, 6, 3).to(device)
    call = partial(run_length, tubelet=2, cell=2, threshold=1.2, anchor=anchor, refresh=refresh)
    whole = call(frames)
    assert 0 < whole.keep[:, 1:].float().mean() < 1
    first, *others = torch.split(frames, [2, 6, 4], dim=1)
    parts = [call(first)]
    for chunk in others:
        parts.append(call(chunk, front=parts[-1].front, open_run=parts[-1].open_run))
    assert torch.equal(torch.cat([part.keep for part in parts], 1), whole.keep)
    assert torch.equal(torch.cat([part.distance for part in parts], 1), whole.distance)
    assert torch.equal(parts[-1].front, whole.front)
    assert torch.equal(parts[-1].open_run, whole.open_run)


def test_distance_equals_that_of_normalised_frames(device: str) -> None:
    frames = video(1, 4, 8, 8, 3)
    std = torch.tensor([0.229, 0.224, 0.225], dtype=torch.float64)
    x = frames.double() / 255 / std
    expected = (x[:, 3] - x[:, 0]).abs().view(1, 2, 4, 2, 4, 3).mean(dim=(2, 4, 5))
    actual = run_length(frames.to(device), tubelet=2, cell=4, threshold=0.1).distance[:, 1]
    # fp32 rounding of three products against fp64
    torch.testing.assert_close(actual.cpu().double(), expected, rtol=1e-6, atol=0)


def test_largest_cell_is_exact(device: str) -> None:
    frames = torch.zeros(1, 2, 256, 256, 3, dtype=torch.uint8, device=device)
    frames[:, 1] = 255
    result = run_length(frames, tubelet=1, cell=256, threshold=1, channel_weight=(1, 1, 1))
    assert result.distance[0, 1].item() == pytest.approx(255, rel=1e-6)  # three products


def test_equal_distance_is_dropped_and_negative_threshold_keeps(device: str) -> None:
    frames = torch.full((1, 4, 2, 2, 3), 9, dtype=torch.uint8, device=device)
    call = partial(run_length, frames, tubelet=2, cell=2)
    open_run = torch.ones(1, 1, 1, dtype=torch.int32, device=device)
    for threshold, kept in ((0, False), (-1, True), (-1e-60, True)):
        result = call(threshold=threshold, front=frames[:, 0], open_run=open_run)
        assert result.keep.flatten().tolist() == [kept, kept]
    first = call(threshold=1e60)
    assert first.keep.flatten().tolist() == [True, False]


def test_channel_weight_sets_the_domain(device: str) -> None:
    frames = torch.zeros(1, 2, 2, 2, 3, dtype=torch.uint8, device=device)
    frames[:, 1] = torch.tensor([3, 6, 9], dtype=torch.uint8)
    result = run_length(frames, tubelet=1, cell=2, threshold=5.9, channel_weight=(1, 1, 1))
    # fp32 rounding of three products
    assert result.distance[0, 1].item() == pytest.approx(6, rel=1e-6)
    assert result.keep.all()


@pytest.mark.parametrize("shape", [(0, 2, 4, 4, 3), (1, 2, 0, 4, 3)], ids=str)
def test_nothing(device: str, shape: tuple[int, ...]) -> None:
    none = run_length(
        torch.zeros(shape, dtype=torch.uint8, device=device), tubelet=2, cell=2, threshold=0.1
    )
    assert none.run.shape == (shape[0], 1, shape[2] // 2, 2)
    assert (none.count.item(), none.index.tolist()) == (0, [])


@pytest.mark.parametrize("anchor", ["prev", "head"])
def test_non_contiguous(device: str, anchor: Anchor) -> None:
    wide = video(2, 8, 4, 12, 3).to(device)
    view = wide[:, ::2, :, 2:10]
    front = wide[:, 1, :, 4:]
    open_run = torch.ones(2, 2, 8, dtype=torch.int32, device=device)[:, :, ::2]
    assert not any(tensor.is_contiguous() for tensor in (view, front, open_run))
    results = [
        run_length(
            frames, tubelet=2, cell=2, threshold=1.0, front=first, open_run=runs, anchor=anchor
        )
        for frames, first, runs in (
            (view, front, open_run),
            (view.contiguous(), front.contiguous(), open_run.contiguous()),
        )
    ]
    assert_same(*results)


@pytest.mark.parametrize("anchor", ["prev", "head"])
def test_streams_do_not_touch_each_other_and_input_stays(device: str, anchor: Anchor) -> None:
    frames = video(3, 4, 4, 4, 3).to(device)
    first = run_length(frames, tubelet=2, cell=2, threshold=1.0, anchor=anchor)
    inputs = (frames, first.front, first.open_run)
    before = [tensor.clone() for tensor in inputs]
    together, *alone = (
        run_length(
            inputs[0][part],
            tubelet=2,
            cell=2,
            threshold=1.0,
            front=inputs[1][part],
            open_run=inputs[2][part],
            anchor=anchor,
        )
        for part in (slice(None), slice(0, 1), slice(1, 2), slice(2, 3))
    )
    for field in ("keep", "run", "distance", "open_run", "front"):
        joined = torch.cat([getattr(result, field) for result in alone])
        assert torch.equal(joined, getattr(together, field))
    assert all(map(torch.equal, inputs, before))


def test_many_threads_say_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    frames = video(2, 4, 12, 8, 3)
    with implementation("native"):
        alone = run_length(frames, tubelet=2, cell=2, threshold=1.0)
        monkeypatch.setattr("kernels._native.PART", 1)
        monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
        assert_same(run_length(frames, tubelet=2, cell=2, threshold=1.0), alone)


@pytest.mark.parametrize("threshold", [math.nan, math.inf, "0.1", True, None], ids=str)
def test_bad_threshold_fails(threshold: float) -> None:
    with pytest.raises(ValueError, match=r"not a finite number.*0\.1"):
        run_length(video(1, 2, 2, 2, 3), tubelet=1, cell=1, threshold=threshold)


def test_bad_shapes_fail() -> None:
    frames = video(1, 4, 4, 4, 3)
    with pytest.raises(ValueError, match=r"4 x 4 x 4 .*tubelet=3"):
        run_length(frames, tubelet=3, cell=2, threshold=0.1)
    with pytest.raises(ValueError, match=r"0 x 4 x 4 .*at least one"):
        run_length(frames[:, :0], tubelet=2, cell=2, threshold=0.1)
    with pytest.raises(ValueError, match="cell=3"):
        run_length(frames, tubelet=2, cell=3, threshold=0.1)
    with pytest.raises(ValueError, match="cell=0"):
        run_length(frames, tubelet=2, cell=0, threshold=0.1)
    with pytest.raises(ValueError, match=r"float32.*expected uint8"):
        run_length(frames.float(), tubelet=2, cell=2, threshold=0.1)


def test_what_does_not_come_from_a_call_before_fails() -> None:
    frames = video(1, 4, 4, 4, 3)
    front, open_run = frames[:, 0], torch.ones(1, 2, 2, dtype=torch.int32)
    call = partial(run_length, frames, tubelet=2, cell=2, threshold=0.1)
    with pytest.raises(ValueError, match="together"):
        call(front=front)
    with pytest.raises(ValueError, match="together"):
        call(open_run=open_run)
    with pytest.raises(ValueError, match=r"front is .*expected .*same size"):
        call(front=front[:, :2], open_run=open_run)
    with pytest.raises(ValueError, match=r"open_run is torch.int64 .*expected torch.int32"):
        call(front=front, open_run=open_run.long())


def test_bad_anchor_and_refresh_fail() -> None:
    frames = video(1, 2, 2, 2, 3)
    with pytest.raises(ValueError, match="prev, head"):
        run_length(frames, tubelet=1, cell=1, threshold=0.1, anchor="next")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"refresh 0 .*None never"):
        run_length(frames, tubelet=1, cell=1, threshold=0.1, refresh=0)
