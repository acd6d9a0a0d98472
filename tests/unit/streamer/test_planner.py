"""Which cells are tokenized, chunk by chunk."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from operators import RLT
from streamer.core.keyframes import KeyframePolicy
from streamer.core.planner import ChunkPlan, PlanState, plan_chunk, positions, tubelet_times
from tests.unit.streamer.tiny import moving_square

CELL = 16
FOREVER = KeyframePolicy(interval_s=1e6, budget=1e6, cut_share=1.0)


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
