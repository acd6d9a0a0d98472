"""Settings from files, the environment and the command line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from streamer.config import PREFIX, ApiSettings, QueueSettings, Settings, load, walk
from streamer.core.pipeline import build_pipeline
from streamer.errors import ConfigError

CONFIGS = sorted((Path(__file__).parents[3] / "configs").glob("*.yaml"))
SECRET = "s3cret-that-nobody-may-see"


def config(name: str) -> Settings:
    [path] = [path for path in CONFIGS if path.stem == name]
    return load(path)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    return tmp_path / "c.yaml"


def test_the_shipped_files_are_these() -> None:
    assert [path.stem for path in CONFIGS] == ["cluster", "cpu", "default", "gpu"]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.name)
def test_every_shipped_file_loads(path: Path) -> None:
    settings = load(path)
    assert len(build_pipeline(settings.pipeline).names) == len(settings.pipeline)


def test_the_default_file_says_the_defaults() -> None:
    said, meant = config("default"), Settings()
    assert build_pipeline(said.pipeline) == build_pipeline(meant.pipeline)
    assert said.model_copy(update={"pipeline": meant.pipeline}) == meant


def most(settings: Settings, resource: str) -> float:
    """What all workers take, when all pools are at their max."""
    pools = [settings.pools.decode, settings.pools.tokenize, settings.pools.caption]
    return sum((pool.max + pool.spares) * float(getattr(pool, resource)) for pool in pools)


def test_one_machine_carries_all_workers_of_its_file() -> None:
    assert most(config("default"), "cpus") == most(config("default"), "gpus") == 0
    cpu, gpu, two_cores = config("cpu"), config("gpu"), 2
    assert (cpu.model.device, most(cpu, "gpus")) == ("cpu", 0)
    assert 0 < most(cpu, "cpus") <= two_cores
    assert (gpu.model.device, gpu.pools.decode.gpus) == ("cuda", 0)
    assert (gpu.pools.tokenize.gpus, gpu.pools.caption.gpus) == (0.25, 0.5)
    assert most(gpu, "gpus") == 1
    assert 0 < most(gpu, "cpus") <= two_cores


def test_the_cluster_file_is_for_several_machines() -> None:
    settings = config("cluster")
    assert (settings.ray.address, settings.log.format) == ("auto", "json")
    assert (settings.api.host, settings.api.tokens) == ("0.0.0.0", ())
    for pool in (settings.pools.decode, settings.pools.tokenize, settings.pools.caption):
        assert pool.min < pool.max
        assert pool.spares > 0
        assert pool.cpus >= 1


def test_the_command_line_wins_over_the_environment_over_the_file(
    written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written.write_text("source: {fps: 1, chunk_s: 3}\nquestion: From the file?")
    monkeypatch.setenv("STREAMER__SOURCE__FPS", "4")
    monkeypatch.setenv("STREAMER__QUESTION", "From the environment?")
    settings = load(written, {"question": "From the command line?"})
    assert (settings.source.fps, settings.source.chunk_s) == (4.0, 3.0)
    assert settings.question == "From the command line?"


OTHER: dict[str, Any] = yaml.safe_load(f"""
source: {{fps: 4.0, chunk_s: 3.0, decoder: decord, ahead: 8, live: true, behind_s: 9.0}}
model:
  name: hub/name
  device: "cuda:1"
  dtype: float32
  attention: flex
  context: dense
  max_cells: 99
  max_new_tokens: 9
  batch: 4
pipeline: [{{name: rlt, threshold: 0.2}}]
keyframes: {{interval_s: 8.0, budget: 3.0, cut_share: 0.5}}
question: What moves?
queue: {{url: redis://h:1/0, port: 7000, server: /bin/redis-server, folder: /data}}
fetch:
  allow_networks: [10.0.0.0/8, "fd00::/8"]
  allow_paths: [/videos]
  max_bytes: 5
  max_pixels: 6
  connect_s: 1.0
  read_s: 2.0
live:
  stall_s: 4.0
  retry_s: 1.0
  retry_max_s: 60.0
  recycle_s: 600.0
  recycle_bytes: 100000000
  buffer_bytes: 2000000
retention:
  tokens_s: 60.0
  tokens_bytes: 2000000
  events_s: 3600.0
  events_bytes: 3000000
  archive: /archive
api:
  host: 0.0.0.0
  port: 80
  tokens: [{{name: me, token: {SECRET}, max_jobs: 3, admin: true}}]
  keep_alive_s: 5.0
  max_questions: 2
  max_upload_bytes: 2000000
  answer_s: 7.0
pools:
  decode: &pool {{min: 0, max: 3, spares: 2, jobs: 4, cpus: 0.5, gpus: 0.25, threads: 3}}
  tokenize: *pool
  caption: *pool
workers: {{silent_s: 5.0, starting_s: 60.0, step_s: 30.0, strikes: 3}}
ray: {{address: head:6379}}
log: {{format: json, level: debug}}
""")
"""For every setting another value than its default."""


def leaves(values: Mapping[str, Any]) -> dict[tuple[str, ...], Any]:
    found: dict[tuple[str, ...], Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found |= {(name, *path): leaf for path, leaf in leaves(value).items()}
        else:
            found[(name,)] = value
    return found


def at(settings: object, path: tuple[str, ...]) -> Any:
    for name in path:
        settings = getattr(settings, name)
    return settings


def as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def test_the_examples_are_of_every_setting() -> None:
    assert leaves(OTHER).keys() == {path for path, _ in walk()}


@pytest.mark.parametrize("path", leaves(OTHER), ids=".".join)
def test_every_setting_can_come_from_the_environment(
    path: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    # some values only go with others: min with max, fps with chunk_s
    rest = {key: value for key, value in OTHER.items() if key != path[0]}
    monkeypatch.setenv(PREFIX + "__".join(path).upper(), as_text(leaves(OTHER)[path]))
    settings, expected = load(overrides=rest), Settings(**OTHER)
    assert at(settings, path) == at(expected, path)
    assert at(settings, path) != at(Settings(), path)


def test_a_section_can_come_from_the_environment_and_a_setting_wins_over_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("STREAMER__POOLS__DECODE__MAX", "4")
    monkeypatch.setenv("STREAMER__POOLS__DECODE", '{"max": 2, "cpus": 1}')
    monkeypatch.setenv("streamer__log__level", "debug")
    settings = load()
    assert (settings.pools.decode.max, settings.pools.decode.cpus) == (4, 1.0)
    assert settings.log.level == "debug"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("SOURCE__FPS", "fast", "source.fps: 'fast' is not allowed: input should be a valid num"),
        ("SORCE__FPS", "3", "STREAMER__SORCE__FPS in the environment: sorce: there is no such"),
        ("SOURCE__FSP", "3", "source.fsp: there is no such setting; did you mean source.fps?"),
        ("QUEUE__AHEAD", "3", "queue.ahead: there is no such setting; did you mean source.ahead?"),
        ("QUESTION__X", "3", "question.x: there is no such setting"),
        ("API__TOKENS__0__NAME", "me", "api.tokens.0: there is no such setting"),
        ("PIPELINE", "rlt", "STREAMER__PIPELINE in the environment: pipeline: 'rlt' is not JSON"),
        ("FETCH__ALLOW_PATHS", "/v", "fetch.allow_paths: '/v' is not JSON; give a list"),
        ("SOURCE", "fast", "source: 'fast' is not JSON; give an object, or one variable per sett"),
    ],
)
def test_a_bad_variable_is_named(
    name: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PREFIX + name, value)
    with pytest.raises(ConfigError) as caught:
        load()
    assert message in str(caught.value)


WRONG = {
    "source: {fps: -1}": "source.fps: -1 is not allowed: input should be greater than 0",
    "source: {fps: .nan}": "source.fps: nan is not allowed: input should be a finite number",
    "source: {fps: 1, chunk_s: 1.5}": "fps 1 × chunk_s 1.5 is 1.5 frames a chunk; give a whole n",
    "model: {device: tpu}": "model.device: 'tpu' is not allowed: string should match pattern",
    "pipeline: [rlt]": "pipeline[0]: 'rlt' is not allowed: give a mapping",
    "pipeline: rlt": "pipeline: 'rlt' is not allowed: give a list",
    "keyframes: {budget: 0.5}": "keyframes.budget: 0.5 is not allowed: input should be greater th",
    "question: ' '": "question: ' ' is not allowed: a question needs words",
    "queue: {port: 70000}": "queue.port: 70000 is not allowed: input should be less than or equ",
    "fetch: {allow_networks: [10.0.0.1/8]}": "fetch.allow_networks[0]: '10.0.0.1/8' is not allo",
    "fetch: {allow_paths: [videos]}": "fetch.allow_paths[0]: 'videos' is not allowed: it is not "
    "absolute; give one like /srv/videos",
    "api: {port: http}": "api.port: 'http' is not allo",
    "api: {tokens: [{name: '!', token: 0123456789abcdef}]}": "api.tokens[0].name: '!' is not allow"
    "ed: string should match pattern '^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$'",
    "pools: {caption: {min: 3}}": "pools.caption: {'min': 3} is not allowed: min 3 is above max 1",
    "pools: {caption: {gpus: 1.5}}": "gpus 1.5: Ray gives a worker a part of one GPU or whole on",
    "pools: {captions: {}}": "pools.captions: there is no such setting; did you mean pools.cap",
    "workers: {silent_s: 1}": "workers.silent_s: 1 is not allowed: input should be greater than",
    "ray: {address: ray://head:10001}": "ray.address: 'ray://head:10001' is not allowed: give ho",
    "live: {stall_s: 0}": "live.stall_s: 0 is not allowed: input should be greater than 0",
    "retention: {tokens_bytes: 1}": "retention.tokens_bytes: 1 is not allowed: input should be gre",
    "log: {level: loud}": "log.level: 'loud' is not allowed: input should be 'debug', 'info', 'wa",
    "sorce: {}": "sorce: there is no such setting; did you mean source?",
    "zzz: 1": "zzz: there is no such setting",
    "true: 1": "True: there is no such setting",
    "source: {1: 2}": "source[1]: 1 is not allowed: keys should be strings",
    "source: 3": "source: 3 is not allowed: give a mapping of settings",
    "[1, 2]": "must hold a mapping of settings, it holds list",
    "log: {\nlevel: [": "is not YAML: line 2: ",
}


@pytest.mark.parametrize(("text", "message"), WRONG.items(), ids=WRONG)
def test_what_is_wrong_is_named_by_its_path(written: Path, text: str, message: str) -> None:
    written.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(written)
    assert message in str(caught.value)
    assert str(written) in str(caught.value)


def test_every_section_has_its_wrong_value() -> None:
    wrong = {next(iter(yaml.safe_load(text))) for text in WRONG if text.endswith("}")}
    assert wrong >= {path[0] for path, _ in walk() if len(path) > 1}


def test_all_that_is_wrong_is_told_at_once(written: Path) -> None:
    written.write_text("source: {fps: 0}\nlog: {colour: red}\n")
    with pytest.raises(ConfigError, match=r"source\.fps: 0 .*; log\.colour: there is no such"):
        load(written)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load(tmp_path / "none.yaml")


LEAKING = {
    "short": f"api: {{tokens: [{{name: me, token: {SECRET[:15]}}}]}}",
    "no_name": f"api: {{tokens: [{{token: {SECRET}}}]}}",
    "bad_name": f"api: {{tokens: [{{name: [me], token: {SECRET}}}]}}",
    "typo": f"api: {{tokens: [{{name: me, tokn: {SECRET}}}]}}",
    "not_a_list": f"api: {{tokens: {SECRET}}}",
    "list_of_text": f"api: {{tokens: [{SECRET}]}}",
    "list_of_lists": f"api: {{tokens: [{{name: me, token: [{SECRET}]}}]}}",
    "not_a_section": f"api: {SECRET}",
    "same_name": f"api: {{tokens: [{{name: a, token: {SECRET}}}, {{name: a, token: b{SECRET}}}]}}",
    "same_token": f"api: {{tokens: [{{name: a, token: {SECRET}}}, {{name: b, token: {SECRET}}}]}}",
    "url_list": f"queue: {{url: ['redis://:{SECRET}@h']}}",
    "url_as_section": f"queue: redis://:{SECRET}@h",
    "torn": f"api: {{tokens: [{{name: me, token: {SECRET}: x: [",
}


@pytest.mark.parametrize("text", LEAKING.values(), ids=LEAKING)
def test_an_error_never_shows_a_secret(written: Path, text: str) -> None:
    written.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(written)
    exc: BaseException | None = caught.value
    while exc is not None:  # a traceback shows them all
        assert SECRET[:12] not in f"{exc} {exc!r}"
        exc = exc.__cause__ or (None if exc.__suppress_context__ else exc.__context__)


@pytest.mark.parametrize("name", ["API", "API__TOKENS", "QUEUE"])
def test_nor_does_one_about_the_environment(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PREFIX + name, f"[{SECRET}")
    with pytest.raises(ConfigError, match=f"{PREFIX}{name} .*: it is not JSON") as caught:
        load()
    assert SECRET not in str(caught.value)


def test_what_is_printed_of_settings_shows_no_secret() -> None:
    settings = Settings(
        queue=QueueSettings(url=f"redis://:{SECRET}@h"), api=ApiSettings(**OTHER["api"])
    )
    assert SECRET not in f"{settings!r} {settings} {settings.api.model_dump()}"
    assert settings.api.tokens[0].token.get_secret_value() == SECRET


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (["a", "a"], "two tokens have the name a; give each its own"),
        (["a", "b"], "two tokens are equal; give each name its own"),
    ],
)
def test_tokens_differ(written: Path, tokens: list[str], message: str) -> None:
    written.write_text(f"api: {{tokens: {[{'name': n, 'token': SECRET} for n in tokens]}}}")
    with pytest.raises(ConfigError, match=message):
        load(written)
