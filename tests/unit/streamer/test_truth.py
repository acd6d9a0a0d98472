"""Rendered clips, what is true of them, and the sentences for it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from streamer.demo import truths
from streamer.embedded.render import render
from streamer.embedded.samples import held_out_clip
from streamer.embedded.scene import Clip, Shot, Thing
from streamer.embedded.truth import (
    QUESTIONS,
    Description,
    answer,
    caption,
    describe,
    parse,
)

DISC = Thing(shape="disc", colour="red", radius=10, x=20, y=64, velocity=(6.0, 0.0))


def clip_of(*shots: Shot, noise: float = 0.0) -> Clip:
    return Clip(seed=1, size=(128, 128), shots=shots, noise=noise)


def shot(*things: Thing, camera: str = "still", frames: int = 4) -> Shot:
    return Shot(
        texture_seed=1,
        origin=(0, 0),
        things=things,
        camera=(camera,) * frames,  # type: ignore[arg-type]  # every name used here is a Camera
        camera_speed=5,
    )


def told(clip: Clip, start: int = 0, stop: int = 4) -> str | None:
    truth = describe(clip, render(clip), start, stop, since=0)
    return None if truth is None else caption(truth)


def test_nothing_moves() -> None:
    scenery = replace(DISC, velocity=(0.0, 0.0))
    assert told(clip_of(shot(scenery))) == "The camera is still. Nothing moves."


def test_one_thing_moves() -> None:
    assert told(clip_of(shot(DISC))) == (
        "The camera is still. One thing moves. It is red, at the left, moving right."
    )


def test_the_largest_of_two_is_described() -> None:
    small = Thing(shape="square", colour="orange", radius=7, x=100, y=20, velocity=(0.0, 4.0))
    assert told(clip_of(shot(small, DISC))) == (
        "The camera is still. Two things move. The largest is red, at the left, moving right."
    )


def test_a_panning_camera_and_a_cut() -> None:
    pan, other = shot(DISC, camera="up"), shot(DISC)
    assert told(clip_of(pan)) == "The camera pans up."
    assert told(clip_of(shot(DISC, frames=2), other), 0, 4) == "Cut to a new scene."


@pytest.mark.parametrize(
    ("x", "y", "why"),
    [
        (-14, 64, "it enters in the last frames"),
        (36 - 18 - 0.5, 64 - 21.5, "it ends on the border between two regions"),
    ],
)
def test_what_a_viewer_could_dispute_has_no_truth(x: float, y: float, why: str) -> None:
    assert told(clip_of(shot(replace(DISC, x=x, y=y)))) is None, why


def test_the_same_seed_gives_the_same_bytes() -> None:
    clip = held_out_clip(7)
    assert np.array_equal(render(clip).frames, render(clip).frames)
    assert clip == held_out_clip(7)
    assert clip != held_out_clip(8)


def test_every_caption_is_understood_again() -> None:
    seen: set[str] = set()
    for seed in range(60):
        clip = held_out_clip(seed)
        rendering = render(clip)
        for start in range(0, clip.num_frames - 3, 4):
            if truth := describe(clip, rendering, start, start + 4, since=0):
                assert parse(caption(truth)) == truth
                seen.add(str(truth.camera))
                for question in QUESTIONS:
                    assert answer(truth, question) != ""
    assert seen >= {"still", "cut"}
    assert parse("The camera is still. Nothing moves") is None
    assert parse("Cut to a new scene.") == Description(camera="cut")


def test_the_owner_map_covers_the_drawn_shape() -> None:
    for form in ("disc", "square", "triangle"):
        thing = replace(DISC, shape=form, x=64.0, radius=17.0)
        owner = render(clip_of(shot(thing))).owner
        assert (owner[0] == 0).sum() == pytest.approx(thing.area, rel=0.03)


def test_scale_changes_the_picture_and_not_the_truth() -> None:
    clip = clip_of(shot(DISC))
    large = replace(clip, scale=3)
    assert render(large).frames.shape == (4, 384, 384, 3)
    assert told(large) == told(clip)


def test_the_demo_shows_all_it_promises() -> None:
    said = truths()
    assert said[0] == "The camera is still. Nothing moves."
    assert any("One thing moves" in s for s in said)
    assert any("Two things move" in s for s in said)
    assert said.count("The camera pans left.") >= 2
    assert said.count("Cut to a new scene.") == 1
    assert sum("in between" in s for s in said) <= 3
