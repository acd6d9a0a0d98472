"""What each part imports, and that nothing more is needed to import it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import kernels
import operators
import streamer.sources

ROOT = Path(__file__).parents[3]

BLOCK = """
import sys
sys.modules.update(dict.fromkeys({blocked!r}))  # None there: "import of … halted", and no spec
"""


def without(blocked: set[str], code: str) -> None:
    """Runs `code` in a process in which the packages `blocked` cannot be imported."""
    done = subprocess.run(
        [sys.executable, "-c", BLOCK.format(blocked=blocked) + code],
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_blocking_is_noticed() -> None:
    with pytest.raises(AssertionError, match="import of yaml halted"):
        without({"yaml"}, "import streamer.config")


def test_values_need_none_of_the_heavy_packages() -> None:
    heavy = {"torch", "transformers", "ray", "redis", "av", "decord", "triton", "torchvision"}
    without(
        heavy | {"safetensors", "tokenizers", "httpx"},
        "import streamer, streamer.wire, streamer.events, streamer.types, streamer.errors\n"
        "import streamer.jobs, streamer.config, streamer.groups, streamer.checkpoint\n"
        "import streamer.adapters.queue, streamer.adapters.memory_queue, streamer.adapters.clock\n",
    )


def test_importing_streamer_needs_nothing_at_all() -> None:
    without(
        {"numpy", "yaml", "pydantic", "pydantic_settings", "structlog", "typer", "rich"},
        "import streamer\nassert streamer.__version__",
    )


def test_decoding_and_the_command_line_start_without_torch_and_ray() -> None:
    without(
        {"torch", "torchvision", "transformers", "ray", "redis", "triton", "safetensors"},
        "import streamer.actors.decode, streamer.actors.lives, streamer.sources\n"
        "import streamer.cli, streamer.__main__\n"
        "from streamer.core import chunker, keyframes\n",
    )


def test_the_client_and_its_commands_need_nothing_of_the_service() -> None:
    heavy = {"torch", "transformers", "ray", "redis", "fastapi", "uvicorn", "numpy", "av"}
    without(heavy | {"typer", "rich", "structlog"}, "from streamer import *\nClient()\n")
    commands = "submit", "watch", "jobs", "cancel", "pause", "resume", "scale", "status"
    without(
        heavy,
        "from typer.testing import CliRunner\n"
        "from streamer.cli import app\n"
        f"for command in {commands}:\n"
        "    arguments = {'submit': ['a'], 'scale': ['decode=1'], 'status': [], 'jobs': []}\n"
        "    given = [command, *arguments.get(command, ['a']), '--url', 'http://127.0.0.1:9']\n"
        "    result = CliRunner().invoke(app, given)\n"
        "    assert 'is it running?' in result.stderr, (command, result.exception)\n",
    )


def test_kernels_and_operators_need_torch_alone() -> None:
    without(
        {"triton", "ray", "redis", "transformers", "yaml", "pydantic", "streamer"},
        "import torch, kernels, operators\n"
        "tokens = torch.ones(2, 3)\n"
        "index = torch.zeros(2, dtype=torch.int64)\n"
        "mean = kernels.segment_mean(tokens, torch.ones(2), index, 1)\n"
        "assert mean.tolist() == [[1.0, 1.0, 1.0]]\n",
    )


def test_transformers_does_not_take_our_kernels_for_the_package_it_knows() -> None:
    """Its probe looks for a package of that name; ours stays below the versions it accepts."""
    from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionModel
    from transformers.utils import is_kernels_available

    assert Path(kernels.__file__ or "").parent == ROOT / "kernels"
    assert Qwen3VLVisionModel.__name__ == "Qwen3VLVisionModel"
    assert not is_kernels_available()


@pytest.mark.parametrize("module", [kernels, operators, streamer.sources], ids=lambda m: m.__name__)
def test_all_names_are_sorted_and_true(module: ModuleType) -> None:
    listed = list(module.__all__)
    constants, classes, rest = (
        sorted(name for name in listed if kind(name))
        for kind in (str.isupper, lambda n: n[0].isupper() and not n.isupper(), str.islower)
    )
    assert listed == [*constants, *classes, *rest]
    assert len(set(listed)) == len(listed)
    found = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    # a function of the same name hides the folder it comes from
    assert found == set(listed)
