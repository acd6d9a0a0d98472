"""The robust change test: what must not trip it, and what must."""

from typing import Literal

import pytest
import torch
from torch import Tensor

from operators import RLT

Change = Literal["plain", "robust"]
Anchor = Literal["prev", "head"]
SIZE = 256
CELL = 32


def textured(seed: int, size: int = SIZE) -> Tensor:
    """A picture with detail at several scales: fp32 [size, size, 3], 30 to 180."""
    generator = torch.Generator().manual_seed(seed)
    picture = torch.zeros(3, size, size)
    for cells, strength in ((4, 30.0), (16, 15.0), (64, 8.0)):
        coarse = torch.randn(1, 3, cells, cells, generator=generator)
        picture += strength * torch.nn.functional.interpolate(coarse, (size, size))[0]
    return (105 + picture).clamp(30, 180).movedim(0, 2)


def seen(*pictures: Tensor, noise: float = 0.0) -> Tensor:
    """Each picture for one tubelet of two frames, as a sensor gives it: uint8 [T, H, W, 3]."""
    generator = torch.Generator().manual_seed(9)
    frames = torch.stack([picture for picture in pictures for _ in range(2)])
    frames = frames + noise * torch.randn(frames.shape, generator=generator)
    return frames.round().clamp(0, 255).byte()


def kept(frames: Tensor, change: Change = "robust", cell: int = CELL) -> Tensor:
    """bool [T' - 1, h, w]: without the first tubelet."""
    operator = RLT(change=change, anchor="head", symmetric=True)
    return operator.select(frames, None, tubelet=2, cell=cell).keep[1:]


def with_square(picture: Tensor, top: int, left: int, edge: int, by: float) -> Tensor:
    drawn = picture.clone()
    drawn[top : top + edge, left : left + edge] += by
    return drawn


@pytest.mark.parametrize("cell", [16, 32])
@pytest.mark.parametrize(("gain", "offset"), [(1, 40), (0.5, 0), (0.6, -10), (1.4, 0), (0.8, 30)])
def test_exposure_is_no_change(gain: float, offset: float, cell: int) -> None:
    picture = textured(0, 4 * cell if cell == 16 else SIZE)
    frames = seen(picture, gain * picture + offset, picture)
    assert kept(frames, "plain", cell).float().mean() > 0.5
    assert not kept(frames, cell=cell).any()


def test_white_balance_is_no_change() -> None:
    picture = textured(0)
    assert not kept(seen(picture, picture * torch.tensor([1.2, 1.0, 0.8]))).any()


def test_noise_is_no_change() -> None:
    frames = seen(*[textured(1)] * 6, noise=8)
    assert kept(frames, "plain").all()
    assert not kept(frames).any()


@pytest.mark.parametrize("noise", [0, 4])
@pytest.mark.parametrize("gain", [1, 0.7])
def test_a_small_thing_is_a_change(gain: float, noise: float) -> None:
    picture = textured(2)
    frames = seen(picture, with_square(gain * picture, 102, 70, 6, 60), noise=noise)
    assert kept(frames)[0].nonzero().tolist() == [[3, 2]]
    if (gain, noise) == (1, 0):
        assert not kept(frames, "plain").any()  # 36 of 1024 pixels: the mean drowns them


def test_a_line_of_thin_text_is_a_change() -> None:
    page = torch.full((SIZE, SIZE, 3), 250.0)
    written = page.clone()
    written[40:48, 70:92:3] = 60  # eight strokes, one pixel wide
    assert kept(seen(page, written))[0].nonzero().tolist() == [[1, 2]]


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7, 0.85])
@pytest.mark.parametrize("plainness", ["textured", "flat"])
def test_a_large_thing_is_not_taken_for_exposure(share: float, plainness: str) -> None:
    picture = textured(3) if plainness == "textured" else torch.full((SIZE, SIZE, 3), 90.0)
    columns = round(share * SIZE / CELL) * CELL
    covered = picture.clone()
    covered[:, :columns] = textured(4)[:, :columns] if plainness == "textured" else 140.0
    keep = kept(seen(picture, covered))[0]
    assert keep[:, : columns // CELL].all()
    assert not keep[:, columns // CELL :].any()


def test_a_lamp_in_a_corner_is_a_change() -> None:
    picture = textured(5)
    row = torch.arange(SIZE)
    near = torch.exp(-(row[:, None] ** 2 + row[None, :] ** 2) / 90.0**2)
    keep = kept(seen(picture, picture + 60 * near[:, :, None]))[0]
    assert keep[:2, :2].all()
    assert not keep[-2:, -2:].any()


def test_a_turn_of_the_camera_changes_everything() -> None:
    picture = textured(6)
    assert kept(seen(picture, picture.roll((9, 21), (0, 1))))[0].float().mean() > 0.95
    assert kept(seen(picture, textured(7)))[0].all()


def test_a_fade_to_black_is_seen_while_it_goes_on() -> None:
    picture = textured(8)
    keep = kept(seen(*[picture * 0.75**t for t in range(7)]))
    assert not keep[:2].any()
    assert keep[:5].any(0).all()


def test_a_token_that_shows_two_states_is_followed_by_one_that_shows_which_lasts() -> None:
    picture = textured(9)
    frames = seen(*[picture] * 4)
    frames[3] = with_square(picture, 64, 64, 32, 70).byte()
    assert kept(frames)[:, 2, 2].tolist() == [True, True, False]


def test_what_the_first_frame_alone_shows_is_a_change_there_too() -> None:
    picture = textured(9)
    frames = seen(*[picture] * 4)
    frames[4] = with_square(picture, 64, 64, 32, 70).byte()
    assert kept(frames)[:, 2, 2].tolist() == [False, True, True]


def plain_coloured(*colour: float) -> Tensor:
    return torch.tensor(colour).expand(SIZE, SIZE, 3).clone()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (plain_coloured(200, 0, 0), plain_coloured(0, 0, 200)),
        (plain_coloured(40, 160, 40), plain_coloured(160, 60, 160)),
        (plain_coloured(90, 90, 90), plain_coloured(140, 140, 140)),
        (textured(3), textured(3) + torch.tensor([70.0, 0, -70])),
        (textured(3), textured(3) * torch.tensor([1.4, 1, 0.4])),
    ],
    ids=["red to blue", "green to magenta", "dark to light grey", "tinted", "filtered"],
)
def test_another_colour_all_over_is_a_change(before: Tensor, after: Tensor) -> None:
    assert kept(seen(before, after, after))[0].all()


def test_what_was_sent_ages_with_the_exposure() -> None:
    # The left part is another picture once it is as bright again; all of it was sent before.
    picture, other = textured(0), textured(0)
    other[:, :96] = textured(4)[:, :96]
    keep = kept(seen(picture, 0.6 * other, 0.6 * other, other))
    assert keep[0, :, :3].all()
    assert not keep[0, :, 3:].any()
    assert not keep[1:].any()


@pytest.mark.parametrize("anchor", ["prev", "head"])
@pytest.mark.parametrize("symmetric", [False, True])
def test_chunks_under_changing_exposure_equal_one_pass(anchor: Anchor, symmetric: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    picture, frames = textured(1, 128), []
    for t in range(16):
        gain = 0.7 + 0.3 * (t // 4 % 2)
        moved = gain * with_square(picture, 10 + 6 * t, 40, 16, 60)
        frames.append(moved + 3 * torch.randn(moved.shape, generator=generator))
    video = torch.stack(frames).clamp(0, 255).byte()
    operator = RLT(change="robust", anchor=anchor, symmetric=symmetric)
    whole = operator.select(video, None, tubelet=2, cell=CELL)
    state, parts = None, []
    for chunk in torch.split(video, [2, 6, 4, 4]):
        parts.append(operator.select(chunk, state, tubelet=2, cell=CELL))
        state = parts[-1].state
    assert torch.equal(torch.cat([part.keep for part in parts]), whole.keep)
    assert torch.equal(torch.cat([part.distance for part in parts]), whole.distance)
    assert 0 < whole.keep[1:].sum() < whole.keep[1:].numel()


def test_the_distance_of_an_even_change_is_the_plain_one() -> None:
    picture = torch.full((SIZE, SIZE, 3), 90.0)
    frames = seen(picture, with_square(picture, 32, 64, 32, 12))
    robust, plain = (
        RLT(change=change).select(frames, None, tubelet=2, cell=CELL).distance[1]
        for change in ("robust", "plain")
    )
    torch.testing.assert_close(robust, plain, rtol=1e-5, atol=1e-6)  # roots of fp32 powers
