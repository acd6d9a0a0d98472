"""The API is light: what workers need is not there."""

from __future__ import annotations

from streamer.config import Settings
from tests.unit.streamer.test_imports import without

HEAVY = {"ray", "torch", "torchvision", "av", "decord", "transformers", "triton", "safetensors"}


def test_the_api_runs_without_what_workers_need() -> None:
    assert Settings()
    without(
        HEAVY,
        "import sys\n"
        "from fastapi.testclient import TestClient\n"
        "import streamer.api.serve\n"
        "from streamer.adapters.memory_asks import MemoryAsks\n"
        "from streamer.adapters.memory_queue import MemoryQueue\n"
        "from streamer.adapters.memory_roster import MemoryRoster\n"
        "from streamer.adapters.memory_uploads import MemoryUploads\n"
        "from streamer.api.app import create_app\n"
        "from streamer.config import Settings\n"
        "beside = {'asks': MemoryAsks(), 'uploads': MemoryUploads()}\n"
        "app = create_app(Settings(), MemoryQueue(), MemoryRoster(), **beside)\n"
        "client = TestClient(app, base_url='http://127.0.0.1')\n"
        "body = {'source': {'url': 'https://93.184.216.34/v.mp4'}}\n"
        "assert client.post('/v1/jobs', json=body).status_code == 201\n"
        f"assert not {{n for n in {HEAVY!r} if sys.modules.get(n) is not None}}\n",
    )
