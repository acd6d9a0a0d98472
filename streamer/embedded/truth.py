"""What is true of a stretch of a rendered clip, and how the embedded model is taught to say it.

A stretch whose truth a viewer could dispute (a thing half out of the picture, one on the border
between two regions, two of nearly the same size, a camera that starts half-way) has no description.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from streamer.config import DEFAULT_QUESTION
from streamer.embedded.render import Rendering, movers_of, placed
from streamer.embedded.scene import COLOURS, DIRECTIONS, SHAPES, Camera, Clip, Thing

REGIONS: tuple[str, ...] = (
    "top left",
    "top",
    "top right",
    "left",
    "centre",
    "right",
    "bottom left",
    "bottom",
    "bottom right",
)
NUMBERS: tuple[str, ...] = (
    "nothing",
    "one thing",
    "two things",
    "three things",
    "four things",
    "five things",
)
CAMERA_SAYS: dict[Camera | Literal["cut"], str] = {
    "still": "The camera is still.",
    "left": "The camera pans left.",
    "right": "The camera pans right.",
    "up": "The camera pans up.",
    "down": "The camera pans down.",
    "in": "The camera zooms in.",
    "out": "The camera zooms out.",
    "shake": "The camera shakes.",
    "cut": "Cut to a new scene.",
}
QUESTION = DEFAULT_QUESTION
QUESTIONS: tuple[str, ...] = (
    "What does the camera do?",
    "How many things move?",
    "What colour is the largest moving thing?",
    "What shape is the largest moving thing?",
    "Where is the largest moving thing?",
    "Which way does the largest moving thing go?",
    "Did the camera move?",
    "Did the scene change?",
    "What left the picture last?",
    "What came into the picture first?",
)

IN_VIEW = 0.5
OUT_OF_VIEW = 0.08
SHAPE_IN_VIEW = 0.7
"""Of a thing, to tell its shape."""
LARGER = 1.25
REGION_MARGIN = 0.02
STAYS: tuple[Camera, ...] = ("still", "shake")
"""Cameras before which things keep their places, so that they are told of."""
MOVES_TOLD = 2
"""Frame to frame, how many movements of the camera tell what kind it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """The truth of one chunk. Of a camera that pans or zooms, and of a cut, only that is said."""

    camera: Camera | Literal["cut"]
    count: int | None = None
    """How many things move and are in view at the chunk's end; None unless the camera stays, and of
    a crowd."""
    shape: str | None = None
    colour: str | None = None
    region: str | None = None
    direction: str | None = None
    left: str | None = None
    """What left the picture last, or "nothing", since watching began; None where disputable."""
    came: str | None = None
    """What came into the picture first, or "nothing", since watching began."""


def describe(
    clip: Clip, rendering: Rendering, start: int, stop: int, *, since: int
) -> Description | None:
    """The truth of frames start … stop−1, told to someone who has watched from frame `since` on.

    Returns None where a viewer could dispute it.
    """
    if stop - start < 2:
        return None
    shot = rendering.shot
    first = max(start - 1, since)
    if shot[first] != shot[stop - 1]:
        return Description(camera="cut")
    showing = clip.shots[shot[start]]
    moves = {showing.camera[rendering.at[t]] for t in range(first + 1, stop)}
    if len(moves) != 1:
        return None
    camera = moves.pop()
    if stop - 1 - first < MOVES_TOLD:
        return None
    if camera not in STAYS or any(thing.extra for thing in showing.things):
        return Description(camera=camera)
    movers = movers_of(showing)
    shares = np.array([visible_share(rendering, t, movers) for t in range(start, stop)])
    seen = shares[-2:]
    before, now = (share > IN_VIEW for share in seen)
    half = any(((share > OUT_OF_VIEW) & (share <= IN_VIEW)).any() for share in seen)
    gone = ((shares > OUT_OF_VIEW).any(0) & ~now).any()
    if (before != now).any() or half or gone:
        return None
    left, came = _traffic(clip, rendering, stop, since=since)
    there = Description(camera=camera, count=0, left=left, came=came)
    present = [i for i in range(len(movers)) if now[i]]
    here = [movers[i] for i in present]
    if not present:
        return there
    sizes = sorted((float(seen[1][i] * movers[i].area), i) for i in present)
    if len(sizes) > 1 and sizes[-1][0] < LARGER * sizes[-2][0]:
        return None
    largest = sizes[-1][1]
    if seen[1][largest] < SHAPE_IN_VIEW or any(m.area > movers[largest].area for m in here):
        return None
    region = _certain_region(rendering.owner[stop - 1] == largest)
    if region is None:
        return None
    thing = movers[largest]
    return replace(
        there,
        count=len(present),
        shape=thing.shape,
        colour=thing.colour,
        region=region,
        direction=DIRECTIONS[thing.direction],
    )


def _traffic(
    clip: Clip, rendering: Rendering, stop: int, *, since: int
) -> tuple[str | None, str | None]:
    """What left last and what came first among frames since … stop−1, by name.

    "nothing" where nothing did; None where two did together, or somebody could see it otherwise.
    """
    shot = int(rendering.shot[stop - 1])
    if rendering.shot[since] != shot:
        return None, None
    first, last = rendering.at[since], rendering.at[stop - 1]
    if not set(clip.shots[shot].camera[first + 1 : last + 1]) <= set(STAYS):
        return None, None  # the camera brought things into the picture, and took others out of it
    scenery = (thing for thing in clip.shots[shot].things if not thing.moves)
    if any(first < edge <= last for thing in scenery for edge in thing.shown):
        return None, None  # it came or left without moving
    movers = movers_of(clip.shots[shot])
    shares = np.array([visible_share(rendering, t, movers) for t in range(since, stop)])
    left: list[tuple[int, str]] = []
    came: list[tuple[int, str]] = []
    for i, thing in enumerate(movers):
        share = shares[:, i]
        whole = np.flatnonzero(share > IN_VIEW)
        if not len(whole):
            if (share > OUT_OF_VIEW).any():
                return None, None  # was it there?
            continue
        name = _named(thing.colour, thing.shape)
        if share[-1] < OUT_OF_VIEW:
            if not _outside(clip, rendering, stop - 1, thing):
                return None, None  # it may come out again from behind something
            left.append((int(np.flatnonzero(share > OUT_OF_VIEW)[-1]), name))
        if share[0] < OUT_OF_VIEW:
            if not _outside(clip, rendering, since, thing):
                return None, None
            came.append((-int(np.flatnonzero(share > OUT_OF_VIEW)[0]), name))
        elif share[0] <= IN_VIEW:
            return None, None
    return _foremost(left), _foremost(came)


def _foremost(events: list[tuple[int, str]]) -> str | None:
    if not events:
        return "nothing"
    events.sort()
    if len(events) > 1 and events[-1][0] == events[-2][0]:
        return None
    return events[-1][1]


def _outside(clip: Clip, rendering: Rendering, t: int, thing: Thing) -> bool:
    """Whether its centre is beyond the edges of frame t."""
    height, width = clip.size
    x, y, _ = placed(thing, int(rendering.at[t]), rendering.views[t], clip.size)
    return not (0 <= x <= width and 0 <= y <= height)


def visible_share(rendering: Rendering, t: int, movers: list[Thing]) -> NDArray[np.float64]:
    """(movers,) share of each mover's area that frame t shows."""
    owner = rendering.owner[t]
    counts = np.bincount(owner[owner >= 0], minlength=len(movers))
    zoom = rendering.views[t, 2]
    areas = np.array([thing.area for thing in movers]) * (rendering.scale * zoom) ** 2
    shares: NDArray[np.float64] = counts / areas
    return shares


def region_of(mask: NDArray[np.bool_]) -> int:
    """Index into REGIONS of where the centre of what is seen lies."""
    down, across = (min(2, int(at * 3)) for at in _centre(mask))
    return 3 * down + across


def _certain_region(mask: NDArray[np.bool_]) -> str | None:
    borders = [abs(at - third) for at in _centre(mask) for third in (1 / 3, 2 / 3)]
    return None if min(borders) < REGION_MARGIN else REGIONS[region_of(mask)]


def _centre(mask: NDArray[np.bool_]) -> tuple[float, float]:
    """Down and across, as shares of the picture's height and width."""
    rows, columns = np.nonzero(mask)
    down, across = (rows.mean() + 0.5) / mask.shape[0], (columns.mean() + 0.5) / mask.shape[1]
    return float(down), float(across)


def caption(truth: Description) -> str:
    """The sentence the model is taught to answer QUESTION with."""
    camera = CAMERA_SAYS[truth.camera]
    if truth.count is None:
        return camera
    if not truth.count:
        return f"{camera} Nothing moves."
    verb = "moves" if truth.count == 1 else "move"
    which = "It is" if truth.count == 1 else "The largest is"
    return (
        f"{camera} {NUMBERS[truth.count].capitalize()} {verb}. {which} "
        f"{_named(truth.colour, truth.shape)}, at the {truth.region}, moving {truth.direction}."
    )


def answer(truth: Description, question: str) -> str | None:
    """The answer to one of QUESTIONS; None where it does not apply."""
    camera, count, colour, shape, where, way, moved, changed, left, came = QUESTIONS
    if question == camera:
        return CAMERA_SAYS[truth.camera]
    if question == changed:
        return "Yes." if truth.camera == "cut" else "No."
    if question == moved:
        return None if truth.camera == "cut" else "No." if truth.camera == "still" else "Yes."
    if truth.count is None:
        return None
    if question in (left, came):
        told = truth.left if question == left else truth.came
        return None if told is None else f"{told.capitalize()}."
    if question == count:
        return f"{NUMBERS[truth.count].split()[0].capitalize()}."
    if truth.count == 0:
        return "Nothing moves."
    return {
        colour: f"{str(truth.colour).capitalize()}.",
        shape: f"A {truth.shape}.",
        where: f"At the {truth.region}.",
        way: f"{str(truth.direction).capitalize()}.",
    }[question]


def _named(colour: str | None, shape: str | None) -> str:
    return f"{'an' if colour == 'orange' else 'a'} {colour} {shape}"


def _any_of(words: tuple[str, ...]) -> str:
    return "|".join(sorted(words, key=len, reverse=True))


_SAYS: dict[str, Camera | Literal["cut"]] = {says: move for move, says in CAMERA_SAYS.items()}
_CAPTION = re.compile(
    r"(?P<camera>The camera [a-z ]+\.|Cut to a new scene\.)"
    r"(?: (?P<count>\w+(?: things?)?) moves?\.)?"
    rf"(?: (?:It|The largest) is an? (?P<colour>{_any_of(tuple(COLOURS))}) "
    rf"(?P<shape>{_any_of(SHAPES)}), "
    rf"at the (?P<region>{_any_of(REGIONS)}), moving (?P<direction>{_any_of(DIRECTIONS)})\.)?"
)


def parse(text: str) -> Description | None:
    """What a caption says; None if it is no sentence of the kind that caption() writes."""
    said = _CAPTION.fullmatch(text)
    if said is None or said["camera"] not in _SAYS:
        return None
    count = said["count"]
    if count is not None and count.lower() not in NUMBERS:
        return None
    found = Description(
        camera=_SAYS[said["camera"]],
        count=None if count is None else NUMBERS.index(count.lower()),
        shape=said["shape"],
        colour=said["colour"],
        region=said["region"],
        direction=said["direction"],
    )
    if count is not None and found.camera not in STAYS:
        return None
    return found if caption(found) == text else None
