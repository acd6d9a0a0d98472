"""Sources over real footage, where it is present: `shared/videos` beside the repository.

The same behaviour is tested on rendered clips in `tests/unit/streamer/test_sources.py`.
"""

from itertools import islice

import av
import numpy as np
import pytest

from streamer.errors import SourceError
from streamer.sources import open_source
from tests.integration.conftest import VIDEOS

pytestmark = [
    pytest.mark.skipif(not VIDEOS.is_dir(), reason="no real footage beside the repository"),
    pytest.mark.timeout(60),
]

# name: (decoder, seconds of pictures, width, height)
WHOLE = {
    "highway_static.mp4": ("decord", 23.0, 1280, 720),
    "campus_walkers_static.avi": ("pyav", 79.5, 480, 360),
    "carpark_overhead_static.mp4": ("decord", 30.2, 768, 432),
    "six_visitors_static.mp4": ("decord", 139.4, 768, 432),
    "cad_screencast_long.webm": ("decord", 344.0, 1806, 835),
    "editor_screencast_vfr.webm": ("pyav", 124.4, 826, 590),
    "rooftop_pan.mp4": ("decord", 15.5, 320, 240),
    "basketball_handheld.mp4": ("decord", 10.0, 426, 240),
    "bunny_trailer_cuts.webm": ("decord", 32.5, 640, 360),
    "bad/vfr_highway.mp4": ("decord", 34.5, 1280, 720),
    "bad/rotated_90.mp4": ("pyav", 1.9, 1080, 1920),
    "bad/anamorphic_sar2x1.mp4": ("pyav", 5.0, 1280, 360),
    "bad/odd_size_161x121_vp9.webm": ("decord", 1.0, 161, 121),
    "bad/av1_10bit_portrait.mp4": ("pyav", 4.2, 720, 1280),
    "bad/hevc_10bit_tiny.mp4": ("pyav", 1.0, 200, 200),
    "bad/interlaced_raw.264": ("pyav", 4.0, 352, 288),
    "bad/two_video_streams.mp4": ("decord", 13.0, 480, 270),
    "bad/store_aisle.gif": ("pyav", 4.5, 480, 270),
}
# name: (seconds of pictures, end of what is announced but missing)
DAMAGED: dict[str, tuple[float, float | None]] = {
    "corrupt_nal.mp4": (5.0, None),
    "ends_early.webm": (5.0, 62.8),
    "partial_35s_6frames.mp4": (0.5, 35.2),
    "no_timescale.mp4": (6.0, None),
    "lost_frames_raw.264": (4.0, None),
    "trunc_carpark.mp4": (11.2, 30.2),
    "trunc_bunny.webm": (14.7, 32.5),
    "trunc_campus.avi": (40.3, 79.5),
    "zeroed_hole_visitors.mp4": (139.4, None),
}
REFUSED = {
    "audio_only.mp4": "holds audio but no video",
    "invalid_vp9.webm": "none of its 51 vp9 pictures can be decoded",
    "moov_ok_data_missing.mp4": "there is no picture data",
    "no_moov_512b.mp4": "no readable video header",
    "trunc_highway.mp4": "no readable video header",
    "empty.mp4": "the file is empty",
}
LONGEST = 30  # slots read of a long file


@pytest.mark.parametrize("name", WHOLE)
def test_whole_files(name: str) -> None:
    decoder, seconds, width, height = WHOLE[name]
    with open_source(str(VIDEOS / name), decoder="decord") as source:
        assert (source.info.decoder, source.info.width, source.info.height) == (
            decoder,
            width,
            height,
        )
        assert (source.info.fallback_reason is None) == (decoder == "decord")
        times = []
        for frame in islice(source.frames(), LONGEST if width < 1000 else 10):
            assert frame.image.shape == (height, width, 3)
            assert frame.image.dtype == np.uint8
            assert frame.image.flags.c_contiguous
            times.append(frame.pts)
        assert times == [k / 2 for k in range(len(times))]
        if source.info.duration_s is not None:
            assert source.info.duration_s == pytest.approx(seconds, abs=0.1)
        last = [frame.pts for frame in source.frames(max(0.0, seconds - 2))][-1]
        assert last == pytest.approx(seconds - 0.25, abs=0.35)
        assert source.missing is None
        assert source.damaged_packets == 0


@pytest.mark.parametrize(
    "name", ["highway_static.mp4", "rooftop_pan.mp4", "bunny_trailer_cuts.webm"]
)
def test_both_decoders_show_the_same(name: str) -> None:
    path = str(VIDEOS / name)
    with open_source(path, fps=1) as one, open_source(path, fps=1, decoder="pyav") as two:
        for a, b in islice(zip(one.frames(), two.frames(), strict=True), 8):
            assert a.pts == b.pts
            assert np.abs(a.image.astype(np.int16) - b.image).mean() < 1


@pytest.mark.parametrize(
    "name",
    [
        "campus_walkers_static.avi",
        "editor_screencast_vfr.webm",
        "bunny_trailer_cuts.webm",
        "bad/rotated_90.mp4",
        "bad/av1_10bit_portrait.mp4",
        *(f"bad/{name}" for name in DAMAGED if name != "zeroed_hole_visitors.mp4"),
    ],
)
def test_any_start_gives_the_same_pictures(name: str) -> None:
    with open_source(str(VIDEOS / name)) as source:
        whole = [(frame.pts, frame.image[::8, ::8].copy()) for frame in source.frames()]
        for share in (0.3, 0.9):
            start_s = whole[int(share * len(whole))][0]
            tail = [(frame.pts, frame.image[::8, ::8]) for frame in source.frames(start_s)]
            expected = [item for item in whole if item[0] >= start_s]
            for (t0, got), (t1, want) in zip(tail, expected, strict=True):
                assert t0 == t1
                assert np.array_equal(got, want)


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files_give_what_decodes(name: str) -> None:
    seconds, announced = DAMAGED[name]
    with open_source(str(VIDEOS / "bad" / name)) as source:
        times = [frame.pts for frame in source.frames()]
        assert times == [k / 2 for k in range(len(times))]
        assert times[-1] == pytest.approx(seconds - 0.25, abs=0.3)
        if announced is None:
            assert source.missing is None
        else:
            assert source.missing is not None
            assert source.missing[0] == times[-1] + 0.5
            assert source.missing[1] == pytest.approx(announced, abs=0.1)


@pytest.mark.parametrize("name", REFUSED)
def test_hopeless_files_are_refused_in_a_sentence(name: str) -> None:
    with pytest.raises(SourceError, match=REFUSED[name]) as caught:
        open_source(str(VIDEOS / "bad" / name))
    assert str(caught.value).startswith(str(VIDEOS / "bad" / name))


def test_a_codec_without_decoder_is_refused_where_there_is_none() -> None:
    path = str(VIDEOS / "bad" / "vvc_unsupported.mp4")
    if "vvc" in av.codecs_available:
        with open_source(path) as source:
            assert len(list(source.frames())) == 10
    else:
        with pytest.raises(SourceError, match="no decoder for its video codec"):
            open_source(path)


def test_every_file_has_an_expectation() -> None:
    known = {*WHOLE, *(f"bad/{name}" for name in [*DAMAGED, *REFUSED, "vvc_unsupported.mp4"])}
    found = {str(p.relative_to(VIDEOS)) for p in VIDEOS.rglob("*") if p.is_file()}
    assert found - {"README.md"} == known


def test_turned_pictures_are_as_other_players_show_them() -> None:
    decord = pytest.importorskip("decord")
    path = str(VIDEOS / "bad" / "rotated_90.mp4")
    other = decord.VideoReader(path)  # turns pictures too
    with open_source(path) as source:
        for frame in source.frames():
            image = other[round(frame.pts * 24)].asnumpy()
            assert np.abs(frame.image.astype(np.int16) - image).mean() < 1
