"""What is true of a stretch of a rendered clip, and how the embedded model is taught to say it.

A stretch whose truth a viewer could dispute (a thing half out of the picture, one on the border
between two regions, two of nearly the same size, a camera that starts half-way) has no description.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from streamer.config import DEFAULT_QUESTION
from streamer.embedded.render import Rendering, movers_of
from streamer.embedded.scene import COLOURS, DIRECTIONS, Camera, Clip, Thing

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
NUMBERS: tuple[str, ...] = ("nothing", "one thing", "two things", "three things")
QUESTION = DEFAULT_QUESTION
QUESTIONS: tuple[str, ...] = (
    "What does the camera do?",
    "How many things move?",
    "What colour is the largest moving thing?",
    "Where is the largest moving thing?",
    "Which way does the largest moving thing go?",
)

IN_VIEW = 0.5
OUT_OF_VIEW = 0.08
LARGER = 1.25
REGION_MARGIN = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """The truth of one chunk. Of a panning camera or a cut only that is said."""

    camera: Camera | Literal["cut"]
    count: int | None = None
    """How many things move and are in view at the chunk's end; None unless the camera is still."""
    colour: str | None = None
    region: str | None = None
    direction: str | None = None


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
    if camera != "still":
        return Description(camera=camera)
    movers = movers_of(showing)
    seen = [visible_share(rendering, t, movers) for t in (stop - 2, stop - 1)]
    before, now = (share > IN_VIEW for share in seen)
    if (before != now).any() or ((seen[1] > OUT_OF_VIEW) & ~now).any():
        return None
    present = [i for i in range(len(movers)) if now[i]]
    if not present:
        return Description(camera="still", count=0)
    sizes = sorted((float(seen[1][i] * movers[i].area), i) for i in present)
    if len(sizes) > 1 and sizes[-1][0] < LARGER * sizes[-2][0]:
        return None
    largest = sizes[-1][1]
    region = _certain_region(rendering.owner[stop - 1] == largest)
    if region is None:
        return None
    thing = movers[largest]
    return Description(
        camera="still",
        count=len(present),
        colour=thing.colour,
        region=region,
        direction=DIRECTIONS[thing.direction],
    )


def visible_share(rendering: Rendering, t: int, movers: list[Thing]) -> NDArray[np.float64]:
    """(movers,) share of each mover's area that frame t shows."""
    owner = rendering.owner[t]
    counts = np.bincount(owner[owner >= 0], minlength=len(movers))
    areas = np.array([thing.area for thing in movers]) * rendering.scale**2
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
    if truth.camera == "cut":
        return "Cut to a new scene."
    if truth.camera != "still":
        return f"The camera pans {truth.camera}."
    if not truth.count:
        return "The camera is still. Nothing moves."
    verb = "moves" if truth.count == 1 else "move"
    which = "It is" if truth.count == 1 else "The largest is"
    return (
        f"The camera is still. {NUMBERS[truth.count].capitalize()} {verb}. "
        f"{which} {truth.colour}, at the {truth.region}, moving {truth.direction}."
    )


def answer(truth: Description, question: str) -> str | None:
    """The answer to one of QUESTIONS; None where it does not apply."""
    if question == QUESTIONS[0]:
        if truth.camera == "cut":
            return "It cuts to a new scene."
        return "It is still." if truth.camera == "still" else f"It pans {truth.camera}."
    if truth.count is None:
        return None
    if question == QUESTIONS[1]:
        return f"{NUMBERS[truth.count].split()[0].capitalize()}."
    if truth.count == 0:
        return "Nothing moves."
    told = {
        QUESTIONS[2]: f"{str(truth.colour).capitalize()}.",
        QUESTIONS[3]: f"At the {truth.region}.",
        QUESTIONS[4]: f"{str(truth.direction).capitalize()}.",
    }
    return told[question]


def _any_of(words: tuple[str, ...]) -> str:
    return "|".join(sorted(words, key=len, reverse=True))


_MOVERS = re.compile(
    r"The camera is still\. (?P<count>One thing|Two things|Three things) moves?\. "
    rf"(?:It|The largest) is (?P<colour>{_any_of(tuple(COLOURS))}), "
    rf"at the (?P<region>{_any_of(REGIONS)}), moving (?P<direction>{_any_of(DIRECTIONS)})\."
)
_PAN = re.compile(r"The camera pans (left|right|up|down)\.")


def parse(text: str) -> Description | None:
    """What a caption says; None if it is no sentence of the kind that caption() writes."""
    if text == "Cut to a new scene.":
        return Description(camera="cut")
    if text == "The camera is still. Nothing moves.":
        return Description(camera="still", count=0)
    if pan := _PAN.fullmatch(text):
        direction: Camera = pan[1]  # type: ignore[assignment]  # the pattern allows no other
        return Description(camera=direction)
    if movers := _MOVERS.fullmatch(text):
        return Description(
            camera="still",
            count=NUMBERS.index(movers["count"].lower()),
            colour=movers["colour"],
            region=movers["region"],
            direction=movers["direction"],
        )
    return None
