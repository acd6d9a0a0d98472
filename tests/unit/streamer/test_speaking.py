"""When a stream speaks: by what changed, and nothing else."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.adapters.queue import Entry
from streamer.core.speaking import SUM_S, Speaking, Why, decide, lost
from streamer.errors import WireError
from streamer.jobs import Question
from streamer.speech import Speech, decode_speech, encode_speech, said_key

SECONDS = 2.0
SHARES = st.floats(0, 1, allow_nan=False)


def spoke(*shares: float, seconds: float = SECONDS) -> list[Why | None]:
    """Why each of the chunks after a first one spoke."""
    state = decide(Speaking(), changed=1.0, seconds=seconds, keyframe="first").after
    found: list[Why | None] = []
    for share in shares:
        decision = decide(state, changed=share, seconds=seconds)
        found.append(decision.why)
        state = decision.after
    return found


def test_a_first_chunk_speaks_and_a_still_one_after_it_does_not() -> None:
    first = decide(Speaking(), changed=0.0, seconds=SECONDS, keyframe="first")
    assert first.why == "new"
    assert spoke(*[0.0] * 1000) == [None] * 1000


def test_who_comes_and_who_leaves_is_spoken_of() -> None:
    """A rise when it begins, and the calm after it, which is another picture."""
    assert spoke(0, 0, 0.3, 0.25, 0, 0) == [None, None, "rise", None, "calm", None]
    # Given somebody who stands about for a while, then leaves
    shares = [0.3, *[0.02] * 10, 0.35, *[0.0] * 10]
    why = spoke(0, 0, *shares)[2:]
    assert (why[0], why[1]) == ("rise", "calm")
    assert (why[11], why[12]) == ("rise", "calm")
    assert sum(w is not None for w in why) == 4


def test_noise_is_not_spoken_of() -> None:
    assert set(spoke(*[0.0, 0.03, 0.01] * 4)) == {None}


def test_what_goes_on_for_ever_is_spoken_of_now_and_then() -> None:
    """A motorway is neither silent nor told at every chunk."""
    for share in (0.05, 0.15, 0.4):
        why = spoke(*[share] * 600)[100:]
        assert set(why) == {None, "sum"}
        each_s = SECONDS * len(why) / sum(w is not None for w in why)
        assert each_s == pytest.approx(SUM_S / share, abs=SECONDS)


def test_short_chunks_speak_as_often_per_second_as_long_ones() -> None:
    long = sum(w is not None for w in spoke(*[0.2] * 300, seconds=2.0))
    short = sum(w is not None for w in spoke(*[0.2] * 1200, seconds=0.5))
    assert long == pytest.approx(short, rel=0.2)  # each sum is as long as it is, in whole chunks


@pytest.mark.parametrize("keyframe", ["first", "restart", "gap", "resize"])
def test_a_picture_that_is_all_new_speaks_and_is_no_measure(keyframe: str) -> None:
    calm = Speaking(usual=0.1, unsaid=0.5, lost=False)
    decision = decide(calm, changed=1.0, seconds=SECONDS, keyframe=keyframe)
    assert decision.why == "new"
    assert decision.after == Speaking(usual=0.1, lost=False)


def test_a_cut_speaks() -> None:
    calm = Speaking(usual=0.5, lost=False)
    assert decide(calm, changed=0.1, seconds=SECONDS, keyframe="cut").why == "cut"
    for keyframe in ("interval", "budget", "asked", None):
        assert decide(calm, changed=0.1, seconds=SECONDS, keyframe=keyframe).why is None


def test_after_what_could_not_be_seen_the_next_chunk_speaks() -> None:
    before = lost(Speaking(usual=0.1, lost=False))
    decision = decide(before, changed=0.0, seconds=SECONDS)
    assert decision.why == "new"
    assert decide(decision.after, changed=0.0, seconds=SECONDS).why is None


@given(st.lists(SHARES, max_size=40))
def test_no_more_than_a_picture_stays_unsaid(shares: list[float]) -> None:
    state = Speaking(lost=False)
    unsaid = 0.0
    for share in shares:
        decision = decide(state, changed=share, seconds=SECONDS)
        unsaid = 0.0 if decision.why else unsaid + share * SECONDS
        assert unsaid < SUM_S
        assert 0 <= decision.after.usual <= 1
        state = decision.after


def stored(speech: Speech) -> Entry:
    return Entry(1, {"speech": encode_speech(speech)}, "job cam events")


@given(SHARES, st.booleans(), SHARES, st.booleans(), st.text(), st.integers(0, 3))
def test_what_is_stored_is_what_was_known(
    usual: float, busy: bool, unsaid: float, is_lost: bool, said: str, level: int
) -> None:
    """To the bit, or another captioner would decide otherwise."""
    said = said.encode("utf-8", "ignore").decode()
    speech = Speech(
        speaking=Speaking(usual=usual, busy=busy, unsaid=unsaid, lost=is_lost),
        said={"q0": said},
        level=level,
    )
    assert decode_speech(stored(speech)) == speech


def test_another_prompt_is_another_question() -> None:
    question = Question(id="q0", prompt="Was öffnet sich?")
    assert said_key(question) == "q0 0bce37c4"
    assert said_key(replace(question, when="on_change")) == said_key(question)
    assert said_key(replace(question, prompt="Was schließt sich?")) != said_key(question)


def test_an_entry_of_an_older_version_knows_nothing() -> None:
    assert decode_speech(Entry(1, {}, "job cam events")) == Speech()
    assert Speech().speaking.lost


@pytest.mark.parametrize(
    "change",
    [
        {"level": 4},
        {"said": {"q": 3}},
        {"said": []},
        {"speaking": {"usual": -1}},
        {"speaking": {"busy": 1}},
        {"speaking": 3},
    ],
)
def test_what_makes_no_sense_is_refused_by_name(change: dict[str, object]) -> None:
    entry = stored(Speech())
    value = {**json.loads(entry.fields["speech"]), **change}
    broken = replace(entry, fields={"speech": json.dumps(value).encode()})
    with pytest.raises(WireError, match=r"job cam events.*: speech\.[a-z.]+"):
        decode_speech(broken)
