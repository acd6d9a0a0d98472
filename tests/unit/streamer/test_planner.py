"""Which cells are tokenized, chunk by chunk."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from operators import RLT
from streamer.core.keyframes import KeyframePolicy
from streamer.core.planner import (
    ChunkPlan,
    PlanState,
    after_gap,
    plan_chunk,
    positions,
    tubelet_times,
    when_asked,
)
from tests.unit.streamer.tiny import moving_square

CELL = 16
FOREVER = KeyframePolicy(interval_s=1e6, budget=1e6, cut_share=1.0)
EACH_CHUNK = KeyframePolicy(interval_s=2.0, budget=1e6, cut_share=1.0)


PLAIN = RLT()
ROBUST = RLT(change="robust", anchor="head", symmetric=True)


def plan_all(
    frames: Tensor,
    chunk_frames: int,
    policy: KeyframePolicy = FOREVER,
    operator: RLT | None = PLAIN,
) -> list[ChunkPlan]:
    plans: list[ChunkPlan] = []
    state: PlanState | None = None
    for start in range(0, len(frames), chunk_frames):
        part = frames[start : start + chunk_frames]
        plan, state = plan_chunk(
            part,
            [t / 2 for t in range(start, start + len(part))],
            state,
            t0=start / 2,
            t1=(start + len(part)) / 2,
            operator=operator,
            policy=policy,
            tubelet=2,
            cell_px=CELL,
        )
        plans.append(plan)
    return plans


@settings(max_examples=25, deadline=None)
@given(
    chunk_frames=st.sampled_from([2, 4, 6, 10]),
    operator=st.sampled_from([PLAIN, ROBUST]),
    seed=st.integers(0, 2**16),
)
def test_chunks_with_carried_state_keep_what_one_pass_keeps(
    chunk_frames: int, operator: RLT, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randint(0, 256, (20, 32, 48, 3), dtype=torch.uint8, generator=generator)
    still = torch.rand(20, 2, 3, generator=generator) < 0.6
    for t in range(1, 20):
        same = still[t].repeat_interleave(CELL, 0).repeat_interleave(CELL, 1)
        frames[t][same] = frames[t - 1][same]
    [whole] = plan_all(frames, 20, operator=operator)
    parts = plan_all(frames, chunk_frames, operator=operator)
    assert torch.equal(torch.cat([p.keep for p in parts]), whole.keep)
    at = torch.cat([positions(p) for p in parts])
    assert torch.equal(at, positions(whole))
    assert [p.kind for p in parts] == ["I"] + ["P"] * (len(parts) - 1)


def test_a_still_picture_costs_one_tubelet_a_group() -> None:
    still = torch.from_numpy(moving_square(1)).expand(40, -1, -1, -1)
    plans = plan_all(still, 4, KeyframePolicy(interval_s=8.0))
    assert [p.kind for p in plans] == ["I", "P", "P", "P"] * 2 + ["I", "P"]
    assert [int(p.keep.sum()) for p in plans] == [20, 0, 0, 0] * 2 + [20, 0]
    assert [p.reason for p in plans[::4]] == ["first", "interval", "interval"]
    assert [p.first_tubelet for p in plans] == list(range(0, 20, 2))


def test_a_cut_ends_the_group_that_shows_it() -> None:
    one, other = moving_square(1), 255 - moving_square(1)
    frames = torch.from_numpy(one).repeat(16, 1, 1, 1)
    frames[6:] = torch.from_numpy(other)
    plans = plan_all(frames, 4, KeyframePolicy())
    assert [p.kind for p in plans] == ["I", "P", "I", "P"]
    assert int(plans[1].keep.sum()) == 20
    assert plans[2].reason == "cut"


def test_a_group_never_outgrows_its_budget() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (48, 32, 48, 3), dtype=torch.uint8, generator=generator)
    policy = KeyframePolicy(budget=5.0, cut_share=1.0)
    spent, most = 0, 0
    for plan in plan_all(noise, 4, policy):
        spent = int(plan.keep.sum()) + (spent if plan.kind == "P" else 0)
        most = max(most, spent)
    assert most == 24  # two dense chunks of 12 cells; a third would pass 5 × 6


def test_tubelet_times_are_the_middle_of_what_was_sampled() -> None:
    assert tubelet_times([0.0, 0.5, 1.0], 2, 2) == (0.25, 1.0)


def test_exposure_is_a_cut_for_the_plain_test_only() -> None:
    generator = torch.Generator().manual_seed(0)
    scene = torch.rand(64, 80, 3, generator=generator) * 120 + 60
    frames = torch.stack([scene] * 4 + [0.6 * scene] * 8).byte()
    kinds = {
        operator: [(p.kind, p.reason) for p in plan_all(frames, 4, KeyframePolicy(), operator)]
        for operator in (PLAIN, ROBUST)
    }
    first = ("I", "first")
    assert kinds[PLAIN] == [first, ("P", None), ("I", "cut")]
    assert kinds[ROBUST] == [first, ("P", None), ("P", None)]


def test_a_cut_is_one_for_both_tests() -> None:
    generator = torch.Generator().manual_seed(0)
    scene, other = torch.randint(0, 256, (2, 64, 80, 3), dtype=torch.uint8, generator=generator)
    frames = torch.stack([scene] * 4 + [other] * 8)
    for operator in (PLAIN, ROBUST):
        plans = plan_all(frames, 4, KeyframePolicy(), operator)
        assert [p.reason for p in plans] == ["first", None, "cut"]


def plan_one(
    frames: Tensor,
    state: PlanState | None,
    *,
    operator: RLT | None = PLAIN,
    policy: KeyframePolicy = FOREVER,
    before: int = 0,
) -> tuple[ChunkPlan, PlanState]:
    return plan_chunk(
        frames,
        [t / 2 for t in range(len(frames))],
        state,
        t0=0.0,
        t1=len(frames) / 2,
        operator=operator,
        policy=policy,
        tubelet=2,
        cell_px=CELL,
        tubelets_before=before,
    )


@pytest.mark.parametrize("operator", [PLAIN, ROBUST])
def test_an_i_chunk_knows_what_a_p_chunk_would_have_kept(operator: RLT) -> None:
    """The same pictures in groups of one chunk and in one group."""
    frames = torch.from_numpy(moving_square(16))
    alone = plan_all(frames, 4, EACH_CHUNK, operator)
    together = plan_all(frames, 4, FOREVER, operator)
    assert [p.kind for p in alone] == ["I"] * 4
    assert [p.kind for p in together] == ["I"] + ["P"] * 3
    assert [p.changed for p in together[1:]] == [
        int(p.keep.sum()) / p.keep.numel() for p in together[1:]
    ]
    assert alone[0].changed == together[0].changed == 1.0
    if operator is PLAIN:  # what it compares with is the tubelet before, whoever sent that
        assert [p.changed for p in alone] == [p.changed for p in together]
    assert all(0 < p.changed < 0.5 for p in alone[1:])
    assert all(p.keep[0].all() for p in alone)


def test_what_cannot_be_compared_has_changed_altogether() -> None:
    still = torch.from_numpy(moving_square(1)).expand(4, -1, -1, -1)
    wide = torch.from_numpy(moving_square(1, size=(80, 64))).expand(4, -1, -1, -1)
    _, state = plan_one(still, None)
    assert plan_one(still, state)[0].changed == 0.0
    assert plan_one(still, when_asked(state))[0].changed == 0.0
    assert plan_one(still, after_gap(state))[0].changed == 1.0
    assert plan_one(wide, state)[0].changed == 1.0
    # whatever else is the reason for the I-chunk
    assert plan_one(wide, when_asked(state))[0].reason == "asked"
    assert plan_one(wide, when_asked(state))[0].changed == 1.0
    # and without an operator nothing is compared
    _, kept = plan_one(still, None, operator=None)
    assert plan_one(still, kept, operator=None)[0].changed == 1.0


def test_what_was_asked_for_is_no_better_than_another_reason() -> None:
    still = torch.from_numpy(moving_square(1)).expand(4, -1, -1, -1)
    _, state = plan_one(still, None)
    plan, after = plan_one(still, when_asked(state))
    assert (plan.kind, plan.reason) == ("I", "asked")
    assert plan_one(still, after)[0].kind == "P"
    assert plan_one(still, when_asked(after_gap(state)))[0].reason == "gap"


def test_a_stream_whose_pictures_are_gone_counts_on() -> None:
    still = torch.from_numpy(moving_square(1)).expand(4, -1, -1, -1)
    plan, state = plan_one(still, None, before=7)
    assert (plan.kind, plan.reason, plan.first_tubelet) == ("I", "restart", 7)
    assert plan_one(still, state, before=7)[0].first_tubelet == 9


class CountingRLT(RLT):
    """Counts its work."""

    calls = 0

    def select(self, *args: Any, **kwargs: Any) -> Any:
        CountingRLT.calls += 1
        return super().select(*args, **kwargs)


def test_only_i_chunks_are_looked_at_twice() -> None:
    frames = torch.from_numpy(moving_square(32))
    plans = plan_all(frames, 4, KeyframePolicy(interval_s=8.0, cut_share=1.0), CountingRLT())
    assert [p.kind for p in plans] == ["I", "P", "P", "P"] * 2
    assert CountingRLT.calls == 9
