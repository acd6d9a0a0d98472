"""The vision tower's ways to attend against torch's own, called per segment."""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Iterator
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import flex_attention
from torch.nn.attention.varlen import varlen_attn
from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLVisionConfig
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionModel

from kernels import segment_attention
from streamer.errors import ModelError
from streamer.vision import attention
from streamer.vision.attention import BLOCK, Way, same_segment, set_attention, way_for
from tests.unit.streamer.tiny import tiny_model

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
LENGTHS = [4, 300, 8, 128]


@pytest.fixture
def tower() -> Qwen3VLVisionModel:
    """The tiny one, with heads of 64 channels: the fused kernels want 16 and more."""
    config = Qwen3VLVisionConfig(**{**tiny_model().tower.config.to_dict(), "hidden_size": 128})
    tower = Qwen3VLVisionModel._from_config(config, attn_implementation="sdpa")
    tower = tower.eval().requires_grad_(False)
    for parameter in tower.parameters():  # the default init is so small that nothing would show
        parameter.mul_(3.0)
    return tower


@pytest.fixture
def ampere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (8, 0))


def run(tower: Qwen3VLVisionModel, lengths: list[int]) -> Tensor:
    """Features of random patches, packed."""
    n, generator = sum(lengths), torch.Generator().manual_seed(0)
    given = {
        "hidden_states": torch.randn(n, 3 * 2 * 8 * 8, generator=generator).to(tower.dtype),
        "grid_thw": torch.tensor([[1, 1, 1]]),
        "position_ids": torch.randint(0, 6, (n, 2), generator=generator),
        "interp_indices": torch.randint(0, 36, (n, 4), generator=generator),
        "interp_weights": torch.rand(n, 4, generator=generator),
        "cu_seqlens": torch.tensor([0, *lengths]).cumsum(0, dtype=torch.int32),
    }
    output: Tensor = tower(**{k: v.to(tower.device) for k, v in given.items()}).pooler_output
    return output


def plain_varlen(
    q: Tensor, k: Tensor, v: Tensor, *rest: object, scale: float | None = None
) -> Tensor:
    """What torch promises of varlen_attn, which runs on a GPU only."""
    call = inspect.signature(varlen_attn).bind(q, k, v, *rest, scale=scale).arguments
    assert torch.equal(call["cu_seq_q"], call["cu_seq_k"])
    assert call["max_q"] == call["max_k"] == max(LENGTHS)
    return segment_attention(q, k, v, call["cu_seq_q"], scale=scale)


@pytest.fixture
def on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What only a GPU can run, or only after a long compilation, does so in plain torch."""
    monkeypatch.setattr(attention, "varlen_attn", plain_varlen)
    monkeypatch.setattr(attention, "compiled_flex", lambda: flex_attention)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="flex_attention called without torch.compile")
        yield


@pytest.mark.usefixtures("on_a_cpu")
@pytest.mark.parametrize("way", ["varlen", "triton", "flex"])
def test_one_call_for_all_segments_equals_one_for_each(tower: Qwen3VLVisionModel, way: Way) -> None:
    expected = run(tower, LENGTHS)
    set_attention(tower, way)
    # three layers of fp32 sums in another order, up to 15
    torch.testing.assert_close(run(tower, LENGTHS), expected, rtol=0, atol=1e-4)


def test_sdpa_again_is_as_before(tower: Qwen3VLVisionModel) -> None:
    expected = run(tower, LENGTHS)
    set_attention(tower, "triton")
    set_attention(tower, "sdpa")
    assert tower.config._attn_implementation == "sdpa"
    assert torch.equal(run(tower, LENGTHS), expected)


@pytest.mark.gpu
@pytest.mark.parametrize("way", ["varlen", "triton", "flex"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_ways_agree_on_a_gpu(tower: Qwen3VLVisionModel, way: Way, dtype: torch.dtype) -> None:
    if not torch.cuda.is_available():
        if "gpu" in os.environ.get("REQUIRE", "").split(","):
            pytest.fail("REQUIRE=gpu, and there is no CUDA device")
        pytest.skip("no CUDA device")
    if way == "varlen" and dtype == torch.float32:
        pytest.skip("FlashAttention has no fp32")
    expected = run(tower.to("cuda"), LENGTHS)
    set_attention(tower, way)
    # As above; in bf16, torch's own attention on a CPU ends up to 0.52 from fp32.
    atol = 1e-3 if dtype == torch.float32 else 1.0
    actual = run(tower.to(dtype), LENGTHS).float()
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


@pytest.mark.parametrize("lengths", [[5], [BLOCK], [100, 1, 500, 27, 0, 300], [1] * 300], ids=str)
def test_blocks_that_share_a_segment_see_each_other(lengths: list[int]) -> None:
    n = sum(lengths)
    mask = same_segment(torch.tensor([0, *lengths]).cumsum(0, dtype=torch.int32), n)
    segment = torch.repeat_interleave(torch.tensor(lengths))
    parts = [set(segment[i : i + BLOCK].tolist()) for i in range(0, n, BLOCK)]
    expected = [[bool(a & b) for b in parts] for a in parts]
    assert mask.to_dense()[0, 0].bool().tolist() == expected
    token = torch.arange(n)
    seen = mask.mask_mod(token, token, token[:, None], token[None, :])
    assert torch.equal(seen, segment[:, None] == segment[None, :])


def test_auto_on_a_cpu_is_sdpa() -> None:
    assert way_for("auto", device=CPU, dtype=torch.float32, channels=64) == "sdpa"
    assert way_for("sdpa", device=CPU, dtype=torch.bfloat16, channels=64) == "sdpa"


@pytest.mark.usefixtures("ampere")
@pytest.mark.parametrize(
    ("dtype", "channels", "way"),
    [
        (torch.bfloat16, 64, "varlen"),
        (torch.float16, 72, "varlen"),
        (torch.bfloat16, 36, "triton"),
        (torch.float32, 64, "triton"),
        (torch.float32, 160, "sdpa"),
    ],
    ids=str,
)
def test_auto_on_a_gpu(dtype: torch.dtype, channels: int, way: Way) -> None:
    assert way_for("auto", device=CUDA, dtype=dtype, channels=channels) == way


@pytest.mark.usefixtures("ampere")
def test_what_cannot_run_is_refused_by_name() -> None:
    with pytest.raises(ModelError, match=r"'varlen' cannot run on cpu .* possible are: auto, sdpa"):
        way_for("varlen", device=CPU, dtype=torch.bfloat16, channels=64)
    with pytest.raises(ModelError, match=r"'varlen' .*float32.* auto, sdpa, triton, flex"):
        way_for("varlen", device=CUDA, dtype=torch.float32, channels=64)

    at = partial(way_for, device=CUDA, channels=64, recalls=True)
    with pytest.raises(
        ModelError, match=r"'flex' .* model\.context: cached; .* auto, sdpa, varlen$"
    ):
        at("flex", dtype=torch.bfloat16)
    assert at("auto", dtype=torch.float32) == "sdpa"


def test_old_gpus_have_no_varlen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (7, 5))
    assert way_for("auto", device=CUDA, dtype=torch.float16, channels=64) == "triton"


def test_the_way_is_the_towers_alone() -> None:
    model = tiny_model()
    set_attention(model.tower, "triton")
    assert model.model.config.text_config._attn_implementation == "sdpa"
    assert tiny_model().tower.config._attn_implementation == "sdpa"
