import os

import pytest
import torch


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name == "cuda" and not torch.cuda.is_available():
        if "gpu" in os.environ.get("REQUIRE", "").split(","):
            pytest.fail("REQUIRE=gpu, and there is no CUDA device")
        pytest.skip("no CUDA device")
    return name
