import os
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

if find_spec("hypothesis") is None:  # a GPU machine that has torch, Triton and pytest only
    collect_ignore = [
        path.name
        for path in Path(__file__).parent.glob("test_*.py")
        if "from hypothesis" in path.read_text()
    ]


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name == "cuda" and not torch.cuda.is_available():
        if "gpu" in os.environ.get("REQUIRE", "").split(","):
            pytest.fail("REQUIRE=gpu, and there is no CUDA device")
        pytest.skip("no CUDA device")
    return name
