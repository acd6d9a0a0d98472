"""Rendered clips, what is true of them, and the sentences for it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from streamer.demo import truths
from streamer.embedded.clips import held_out_clip
from streamer.embedded.render import render
from streamer.embedded.scene import COLOURS, PANS, ZOOMS, Box, Clip, Light, Shot, Thing
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
        "The camera is still. One thing moves. It is a red disc, at the left, moving right."
    )


def test_the_largest_of_two_is_described() -> None:
    small = Thing(shape="square", colour="orange", radius=7, x=100, y=20, velocity=(0.0, 4.0))
    assert told(clip_of(shot(small, DISC))) == (
        "The camera is still. Two things move. The largest is a red disc, at the left, "
        "moving right."
    )


@pytest.mark.parametrize(
    ("camera", "says"),
    [
        ("up", "The camera pans up."),
        ("in", "The camera zooms in."),
        ("out", "The camera zooms out."),
    ],
)
def test_of_a_moving_camera_only_that_is_said(camera: str, says: str) -> None:
    assert told(clip_of(shot(DISC, camera=camera))) == says


def test_before_a_shaking_camera_things_are_described() -> None:
    assert told(clip_of(shot(DISC, camera="shake"))) == (
        "The camera shakes. One thing moves. It is a red disc, at the left, moving right."
    )


def test_two_frames_alone_tell_nothing_of_the_camera() -> None:
    assert told(clip_of(shot(DISC, camera="up")), 0, 2) is None
    assert told(clip_of(shot(DISC)), 0, 2) is None
    assert told(clip_of(shot(DISC, camera="up")), 1, 4) is not None


def test_a_cut_is_a_cut() -> None:
    other = shot(DISC)
    assert told(clip_of(shot(DISC, frames=2), other), 0, 4) == "Cut to a new scene."


def test_what_is_hidden_behind_a_post_is_not_counted() -> None:
    post = replace(DISC, shape="square", colour="grey", radius=30, x=38, velocity=(0.0, 0.0))
    assert told(clip_of(shot(DISC, post))) == "The camera is still. Nothing moves."


def test_what_comes_at_once_does_not_move() -> None:
    lamp = replace(DISC, velocity=(0.0, 0.0), shown=(2, 100))
    clip = clip_of(shot(lamp))
    assert told(clip) == "The camera is still. Nothing moves."
    frames = render(clip).frames
    assert not np.array_equal(frames[1], frames[2])


def test_what_left_last_and_what_came_first() -> None:
    # Given a disc that leaves at the right, and a square that comes from the left after it
    leaves = replace(DISC, x=110.0)
    comes = replace(DISC, shape="square", colour="orange", x=-30.0, velocity=(12.0, 0.0))
    clip = clip_of(shot(leaves, comes, frames=10))
    # When somebody watches all of it
    truth = describe(clip, render(clip), 6, 10, since=0)
    # Then both are known, and nothing of it to who comes at the end
    assert truth is not None
    assert (truth.left, truth.came) == ("a red disc", "an orange square")
    assert answer(truth, QUESTIONS[8]) == "A red disc."
    assert answer(truth, QUESTIONS[9]) == "An orange square."
    late = describe(clip, render(clip), 7, 10, since=7)
    assert late is not None
    assert (late.left, late.came) == ("nothing", "nothing")


def test_what_comes_without_moving_is_nobodys_first() -> None:
    lamp = replace(DISC, velocity=(0.0, 0.0), shown=(2, 100))
    truth = describe(clip := clip_of(shot(lamp)), render(clip), 0, 4, since=0)
    assert truth is not None
    assert truth.count == 0
    assert (truth.left, truth.came) == (None, None)


def test_what_is_seen_is_measured_as_the_camera_shows_it() -> None:
    # Given a camera that has zoomed in and stopped, and a disc a third of which is in view
    moves = ("still", *("in",) * 10, *("still",) * 4)
    zoomed = replace(
        shot(replace(DISC, x=64.0, y=64.0, velocity=(0.001, 0.0))),
        camera=moves,  # type: ignore[arg-type]  # all are Cameras
        camera_speed=9,
    )
    scale = zoomed.views()[-1, 2]
    assert scale > 1.8
    # Then a whole one is in view, and one at the edge is not, however large it is seen
    whole = clip_of(zoomed)
    truth = describe(whole, render(whole), 11, 15, since=11)
    assert truth is not None
    assert truth.count == 1
    edge = 64 + 64 / scale + 3
    part = replace(zoomed.things[0], x=edge)
    clip = clip_of(replace(zoomed, things=(part,)))
    assert describe(clip, render(clip), 11, 15, since=11) is None


def test_a_thing_that_is_just_leaving_is_disputable() -> None:
    # Given a disc of which a part is left in the last frame but one, and nothing in the last
    clip = clip_of(shot(replace(DISC, x=128.0 - 20 + 3, velocity=(10.0, 0.0))))
    shares = [float((frame == 0).mean()) for frame in render(clip).owner]
    assert shares[2] > 0
    assert shares[3] == 0
    assert told(clip) is None


def test_a_thing_that_left_during_the_chunk_is_disputable() -> None:
    # Given a disc that is wholly in view at first, and gone in the last two frames
    clip = clip_of(shot(replace(DISC, x=118.0, velocity=(14.0, 0.0))))
    shares = [float((frame == 0).mean()) for frame in render(clip).owner]
    assert shares[0] > 0
    assert shares[2] == 0
    assert told(clip) is None


def test_the_largest_is_the_largest_though_half_of_it_is_hidden() -> None:
    # Given a large disc of which half is in view, and a whole square that shows more
    large = replace(DISC, radius=16.0, x=110.0, velocity=(0.0, 3.0), y=50.0)
    square = replace(DISC, shape="square", radius=13.6, x=20.0)
    for x, certain in ((100.0, True), (127.0, False)):
        clip = clip_of(shot(replace(large, x=x), square))
        assert (told(clip) is not None) == certain


def test_after_a_pan_nobody_knows_what_left_by_itself() -> None:
    pans = ("still", *("left",) * 5, *("still",) * 6)
    scene = replace(shot(DISC), camera=pans)  # type: ignore[arg-type]  # all are Cameras
    clip = clip_of(scene)
    for since, known in ((0, False), (6, True)):
        truth = describe(clip, render(clip), 8, 12, since=since)
        assert truth is not None
        assert (truth.left is not None) == known


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
    answered: set[str] = set()
    for seed in range(60):
        clip = held_out_clip(seed)
        rendering = render(clip)
        for start in range(0, clip.num_frames - 3, 4):
            if truth := describe(clip, rendering, start, start + 4, since=0):
                assert parse(caption(truth)) == replace(truth, left=None, came=None)
                seen.add(str(truth.camera))
                said = [question for question in QUESTIONS if answer(truth, question)]
                answered |= set(said)
    assert seen >= {"still", "cut", "shake"}
    assert seen & set(PANS)
    assert seen & set(ZOOMS)
    assert answered == set(QUESTIONS)
    assert parse("The camera is still. Nothing moves") is None
    assert parse("The camera is still. Seven things move.") is None
    assert parse("Cut to a new scene. Nothing moves.") is None
    assert parse("Cut to a new scene.") == Description(camera="cut")


def test_the_owner_map_covers_the_drawn_shape() -> None:
    for form in ("disc", "square", "triangle"):
        thing = replace(DISC, shape=form, x=64.0, radius=17.0)
        owner = render(clip_of(shot(thing))).owner
        assert (owner[0] == 0).sum() == pytest.approx(thing.area, rel=0.03)


def test_light_exposure_and_codec_change_the_picture_and_not_the_truth() -> None:
    clip = clip_of(shot(DISC))
    plain = render(clip).frames.astype(float)
    darker = replace(clip, light=Light(step=(2, 0.8)))
    seen = render(darker).frames.astype(float)
    assert np.array_equal(seen[:2], plain[:2])
    assert seen[2:].mean() == pytest.approx(0.8 * plain[2:].mean(), rel=0.02)
    evened = render(replace(darker, light=Light(step=(2, 0.8), exposure=1.0))).frames
    assert evened[2:].mean() == pytest.approx(plain[2:].mean(), rel=0.02)
    coded = render(replace(clip, crf=34)).frames.astype(float)
    assert 0.5 < np.abs(coded - plain).mean() < 12
    assert told(clip) is not None
    assert told(darker) == told(replace(clip, crf=34)) == told(clip)


@pytest.mark.parametrize("colour", sorted(COLOURS))
def test_a_colour_stays_itself_in_any_light(colour: str) -> None:
    thing = replace(DISC, colour=colour, x=40.0, radius=16)
    for light in (Light(step=(0, 5.0)), Light(step=(0, 0.1)), Light(step=(0, 1.3), exposure=0.5)):
        clip = replace(clip_of(shot(thing)), light=light)
        seen = render(clip)
        mean = seen.frames[0][seen.owner[0] == 0].astype(float).mean(0)
        # of the same hue, whatever the brightness
        assert min(COLOURS, key=lambda name: _apart(mean, COLOURS[name])) == colour


def _apart(seen: np.ndarray, paint: tuple[int, int, int]) -> float:
    """Least distance, over all gains that light may have."""
    lit = np.clip(np.outer(np.linspace(0.7, 1.3, 25), paint), 0, 255)
    return float(np.abs(lit - seen).sum(1).min())


def test_leaves_stir_where_they_are_and_nowhere_else() -> None:
    stirring = replace(shot(), leaves=Box(x=16, y=32, width=48, height=32))
    changed = (np.diff(render(clip_of(stirring)).frames.astype(int), axis=0) != 0).any((0, 3))
    assert changed[32:64, 16:64].mean() > 0.5
    changed[32:64, 16:64] = False
    assert not changed.any()


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
