"""Sources over rendered clips, whose pictures say their own number."""

import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from streamer.core.chunker import Chunker
from streamer.errors import SourceError
from streamer.sources import Limits, Source, open_source
from streamer.sources.decord_reader import DecordReader, DecordRefused
from tests.clips import cut, damaged, number_of, render, sound_only

VP9 = {"codec": "libvpx-vp9", "options": {"cpu-used": "8", "deadline": "realtime", "g": "20"}}
X265 = {"codec": "libx265", "options": {"x265-params": "log-level=none:keyint=20"}}
OPEN_GOP = {"options": {"x264-params": "open-gop=1:bframes=3:b-adapt=0:keyint=10:scenecut=0"}}

CLIPS: dict[str, tuple[dict[str, Any], str]] = {
    "h264.mp4": ({"options": {"g": "20", "bf": "2"}}, "decord"),
    "h264.mkv": ({"options": {"g": "20", "bf": "2"}}, "decord"),
    "vp9.webm": (VP9, "decord"),
    "odd.webm": ({**VP9, "size": (121, 67)}, "decord"),
    "sound.mp4": ({"sound_s": 4.0}, "decord"),
    "open_gop.mp4": (OPEN_GOP, "pyav"),
    "hevc.mp4": (X265, "pyav"),
    "ten_bit.mp4": ({"pix_fmt": "yuv420p10le"}, "pyav"),
    "wide_pixels.mp4": ({"sar": Fraction(2)}, "pyav"),
    "anim.gif": ({"codec": "gif", "pix_fmt": "rgb8"}, "pyav"),
    "b_frames.avi": ({"options": {"g": "20", "bf": "2"}}, "pyav"),
    "stream.ts": ({"options": {"g": "20", "bf": "2"}}, "pyav"),
}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for name, (settings, _) in CLIPS.items():
        render(folder / name, 45, **settings)
    return folder


def numbers(source: Source, start_s: float = 0.0) -> list[tuple[float, int]]:
    return [(frame.pts, number_of(frame.image)) for frame in source.frames(start_s)]


@pytest.mark.parametrize("name", CLIPS)
@pytest.mark.parametrize("decoder", ["decord", "pyav"])
def test_every_slot_shows_the_picture_of_its_time(clips: Path, name: str, decoder: Any) -> None:
    with open_source(str(clips / name), decoder=decoder) as source:
        assert numbers(source) == [(k / 2, 5 * k) for k in range(9)]
        assert source.missing is None
        assert source.damaged_packets == 0
        assert source.info.decoder == (CLIPS[name][1] if decoder == "decord" else "pyav")
        assert (source.info.fallback_reason is None) == (
            decoder == "pyav" or source.info.decoder == "decord"
        )


@pytest.mark.parametrize("name", CLIPS)
@pytest.mark.parametrize("decoder", ["decord", "pyav"])
def test_any_start_gives_the_same_pictures(clips: Path, name: str, decoder: Any) -> None:
    with open_source(str(clips / name), decoder=decoder, fps=5) as source:
        whole = list(source.frames())
        for start_s in (0.1, 0.2, 1.9, 2.0, 2.2, 3.99, 4.4, 4.5, 100.0):
            tail = list(source.frames(start_s))
            expected = [frame for frame in whole if frame.pts >= start_s]
            assert [frame.pts for frame in tail] == [frame.pts for frame in expected]
            for got, want in zip(tail, expected, strict=True):
                assert np.array_equal(got.image, want.image)


@pytest.mark.parametrize("name", ["h264.mp4", "vp9.webm", "odd.webm"])
def test_both_decoders_show_the_same(clips: Path, name: str) -> None:
    with (
        open_source(str(clips / name), decoder="decord") as one,
        open_source(str(clips / name), decoder="pyav") as two,
    ):
        assert one.info.decoder == "decord"
        for a, b in zip(one.frames(), two.frames(), strict=True):
            assert a.pts == b.pts
            # two versions of swscale place the colours of odd sizes differently along edges
            assert np.abs(a.image.astype(int) - b.image).mean() < 2


@pytest.mark.parametrize("name", ["h264.mp4", "hevc.mp4"])
def test_chunks_of_a_file_can_be_made_alone(clips: Path, name: str) -> None:
    tool = Chunker(chunk_s=1, fps=4, tubelet=2, clock=lambda: 0.0)
    with open_source(str(clips / name), fps=4) as source:
        whole = list(tool.chunks(source))
        assert [(c.number, c.t0, c.t1, len(c.pts)) for c in whole] == [
            *((n, n - 1.0, float(n), 4) for n in range(1, 5)),
            (5, 4.0, 4.5, 2),
        ]
        for chunk in whole:
            alone = next(tool.chunks(source, chunk.number))
            assert (alone.number, alone.t0, alone.t1) == (chunk.number, chunk.t0, chunk.t1)
            assert np.array_equal(alone.frames, chunk.frames)


def test_pictures_are_contiguous_rgb(clips: Path) -> None:
    with open_source(str(clips / "h264.mp4")) as source:
        for frame in source.frames():
            assert frame.image.shape == (source.info.height, source.info.width, 3) == (64, 128, 3)
            assert frame.image.dtype == np.uint8
            assert frame.image.flags.c_contiguous
            # the frame around the fields is (200, 60, 40)
            assert np.abs(frame.image[0].astype(int) - (200, 60, 40)).mean() < 12


@pytest.mark.parametrize("suffix", ["mkv", "webm"])
@pytest.mark.parametrize("decoder", ["decord", "pyav"])
def test_variable_rate_repeats_what_is_on_screen(tmp_path: Path, suffix: str, decoder: Any) -> None:
    codec = {"codec": "libx264"} if suffix == "mkv" else VP9
    times = [0, 0.2, 0.3, 1.0, 1.9, 2.0, 2.6, 4.1]
    clip = render(tmp_path / f"x.{suffix}", times, **codec)
    with open_source(str(clip), decoder=decoder) as source:
        assert [n for _, n in numbers(source)] == [0, 2, 3, 3, 5, 5, 6, 6, 6]


def test_a_long_hold_is_kept(tmp_path: Path) -> None:
    clip = render(tmp_path / "x.mkv", [0, 1, 31, 32])
    with open_source(str(clip), fps=1) as source:
        assert [n for _, n in numbers(source)] == [0, *[1] * 30, 2, 3]


def test_sampling_faster_than_the_pictures_repeats(clips: Path) -> None:
    with open_source(str(clips / "h264.mp4"), fps=20) as source:
        assert [n for _, n in numbers(source)][:6] == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("rotation", "hflip"), [(-90, False), (90, False), (180, False), (0, True), (90, True)]
)
def test_pictures_are_upright(tmp_path: Path, rotation: int, hflip: bool) -> None:
    clip = render(tmp_path / "x.mp4", 6, rotation=rotation, hflip=hflip)
    with open_source(str(clip), fps=10) as source:
        images = [frame.image for frame in source.frames()]
        assert (source.info.width, source.info.height) == images[0].shape[1::-1]
    for number, image in enumerate(images):
        stored = image[:, ::-1] if hflip else image
        stored = np.rot90(stored, -rotation // 90)
        assert stored.shape == (64, 128, 3)
        assert number_of(stored) == number


def test_wide_pixels_are_stretched(clips: Path) -> None:
    with open_source(str(clips / "wide_pixels.mp4")) as source:
        assert (source.info.width, source.info.height) == (256, 64)


def test_the_best_video_is_told_apart_from_sound(clips: Path) -> None:
    with open_source(str(clips / "sound.mp4")) as source:
        assert source.info.codec == "h264"
        assert source.info.duration_s == pytest.approx(4.5)


def test_a_fall_back_is_said_once(clips: Path) -> None:
    with capture_logs() as logs, open_source(str(clips / "anim.gif"), decoder="decord") as source:
        list(source.frames())
        list(source.frames(1.0))
    assert [(x["event"], x["log_level"]) for x in logs] == [("decoder_fell_back", "warning")]
    assert logs[0]["reason"] == source.info.fallback_reason


def test_decord_failing_midway_changes_nothing_but_the_decoder(
    clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = DecordReader.read

    def failing(self: DecordReader, wanted: Any) -> Any:
        for i, pair in enumerate(read(self, wanted)):
            if i == 4:
                raise DecordRefused("broken")
            yield pair

    monkeypatch.setattr(DecordReader, "read", failing)
    with capture_logs() as logs, open_source(str(clips / "h264.mp4"), decoder="decord") as source:
        assert source.info.decoder == "decord"
        assert numbers(source) == [(k / 2, 5 * k) for k in range(9)]
        assert (source.info.decoder, source.info.fallback_reason) == ("pyav", "broken")
    assert len(logs) == 1


def test_missing_decord_is_a_fall_back(clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "decord", None)
    with open_source(str(clips / "h264.mp4"), decoder="decord") as source:
        assert "decord cannot be imported" in (source.info.fallback_reason or "")
        assert len(numbers(source)) == 9


def test_a_hole_in_the_middle_costs_only_its_pictures(tmp_path: Path) -> None:
    whole = render(tmp_path / "x.mp4", 60, options={"g": "10"}, movflags="faststart")
    clip = damaged(whole, tmp_path / "hole.mp4", at=0.6, length=200)
    with open_source(str(clip)) as source:
        assert source.info.decoder == "pyav"
        found = numbers(source)
        assert [pts for pts, _ in found] == [k / 2 for k in range(12)]
        wrong = [pts for pts, number in found if number != 10 * pts]
        assert len(wrong) <= 2
        assert source.damaged_packets > 0
        assert source.missing is None
        assert numbers(source, 3.0) == [x for x in found if x[0] >= 3.0]


@pytest.mark.parametrize(("suffix", "sound_s"), [("mp4", 0), ("mp4", 6), ("mkv", 0), ("mkv", 6)])
def test_a_cut_file_gives_its_pictures_and_says_what_is_missing(
    tmp_path: Path, suffix: str, sound_s: float
) -> None:
    whole = render(
        tmp_path / f"x.{suffix}",
        60,
        options={"g": "10"},
        sound_s=sound_s,
        movflags="faststart" if suffix == "mp4" else "",
    )
    with open_source(str(cut(whole, tmp_path / f"cut.{suffix}", 0.5))) as source:
        found = numbers(source)
        assert found == [(k / 2, 5 * k) for k in range(len(found))]
        assert 2 <= len(found) <= 9
        assert source.missing is not None
        assert source.missing[0] == found[-1][0] + 0.5
        assert source.missing[1] == pytest.approx(6.0, abs=0.1)


def test_sound_that_goes_on_is_not_missing_video(tmp_path: Path) -> None:
    with open_source(str(render(tmp_path / "x.mkv", 20, sound_s=6))) as source:
        assert len(numbers(source)) == 4
        assert source.missing is None


def bad(folder: Path, kind: str) -> Path:
    path = folder / "x.mp4"
    if kind == "sound only":
        return sound_only(path)
    if kind == "empty":
        path.touch()
    elif kind == "garbage":
        path.write_bytes(np.random.default_rng(0).bytes(40_000))
    elif kind == "text":
        path.write_text("this is not a video\n" * 500)
    elif kind == "zeros":
        path.write_bytes(bytes(50_000))
    elif kind == "hls":
        path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:///etc/passwd\n")
    elif kind == "concat":
        path.write_text("ffconcat version 1.0\nfile 'whole.mp4'\n")
    else:
        whole = render(folder / "whole.mp4", 20, movflags="faststart")
        data = whole.read_bytes()
        if kind == "index lost":
            data = render(folder / "late.mp4", 20).read_bytes()[:-600]
        elif kind == "codec unknown":
            data = data.replace(b"avc1", b"zzz9")
        elif kind == "no picture data":
            data = data[: data.index(b"mdat") + 4]
        elif kind == "all pictures broken":
            start = data.index(b"mdat") + 4
            data = data[:start] + bytes(len(data) - start)
        path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("kind", "match"),
    [
        ("empty", r"the file is empty \(0 bytes\)"),
        ("garbage", "no readable video header found"),
        ("text", "no readable video header found"),
        ("zeros", "no readable video header found"),
        ("hls", "no readable video header found|is a playlist"),
        ("concat", "is a playlist or another format that is not read"),
        ("sound only", "holds audio but no video"),
        ("index lost", "no readable video header found"),
        ("codec unknown", "no decoder for its video codec"),
        ("no picture data", "announces h264 video, but there is no picture data"),
        ("all pictures broken", "h264 pictures can be decoded|no picture data"),
    ],
)
def test_what_is_not_a_video_is_said_in_a_sentence(
    tmp_path: Path, kind: str, match: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = bad(tmp_path, kind)
    with pytest.raises(SourceError, match=match) as caught:
        open_source(str(path))
    assert str(caught.value).startswith(f"{path}: ")
    assert capfd.readouterr().err == ""


def test_libraries_do_not_write_to_stderr(
    clips: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    hole = damaged(clips / "h264.mp4", tmp_path / "hole.mp4", at=0.4, length=300)
    for path in (hole, clips / "h264.mp4", clips / "vp9.webm"):
        with open_source(str(path)) as source:
            list(source.frames())
    assert capfd.readouterr().err == ""


def test_pictures_are_bounded(clips: Path) -> None:
    with pytest.raises(SourceError, match=r"128×64 is more than 8000 pixels; raise max_pixels"):
        open_source(str(clips / "h264.mp4"), limits=Limits(max_pixels=8000))
    with pytest.raises(SourceError, match=r"256×64 is more than 9000 pixels"):
        open_source(str(clips / "wide_pixels.mp4"), limits=Limits(max_pixels=9000))


@pytest.mark.parametrize("fps", [0.0, -1.0, float("nan"), float("inf")])
def test_an_absurd_fps_is_refused(fps: float) -> None:
    with pytest.raises(ValueError, match="must be a finite number above 0"):
        open_source("x.mp4", fps=fps)


@pytest.mark.parametrize("start_s", [-1.0, float("nan")])
def test_an_absurd_start_is_refused(clips: Path, start_s: float) -> None:
    with (
        open_source(str(clips / "anim.gif"), decoder="decord") as source,
        pytest.raises(ValueError, match="from 0 on"),
    ):
        next(source.frames(start_s))


@pytest.mark.parametrize("name", ["h264.mp4", "hevc.mp4"])
def test_a_closed_source_says_so(clips: Path, name: str) -> None:
    source = open_source(str(clips / name))
    frames = source.frames()
    next(frames)
    source.close()
    source.close()
    with pytest.raises(SourceError, match="was closed"):
        next(frames)
    with pytest.raises(SourceError, match="was closed"):
        next(source.frames())


def test_two_readings_do_not_disturb_each_other(clips: Path) -> None:
    for name in ("h264.mp4", "hevc.mp4"):
        with open_source(str(clips / name)) as source:
            pairs = zip(source.frames(), source.frames(1.0), strict=False)
            for a, b in pairs:
                assert number_of(b.image) == number_of(a.image) + 10


def test_decoding_imports_no_torch() -> None:
    code = (
        "import sys, streamer.sources, streamer.core.chunker\n"
        "print([m for m in ('torch', 'decord', 'ray', 'redis') if m in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert found.stdout.strip() == "[]"
