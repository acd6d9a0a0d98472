"""Clips cut into segments and playlists, by PyAV's own HLS writer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.padding import PKCS7

KEY = bytes(range(16))


def cut_up(clip: Path, folder: Path, **options: str) -> Path:
    """The playlist of a clip in segments that begin with its keyframes, in a folder of its own.

    `options` are those of the writer, e.g. hls_segment_type="fmp4".
    """
    folder.mkdir()
    settings = {"hls_time": "0.1", "hls_list_size": "0", "hls_playlist_type": "vod", **options}
    playlist = folder / "list.m3u8"
    with av.open(str(clip)) as source, av.open(str(playlist), "w", options=settings) as out:
        video = source.streams.video[0]
        stream: Any = out.add_stream_from_template(video)
        for packet in source.demux(video):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    return playlist


def lock(clip: Path, folder: Path) -> Path:
    """The same, encrypted by the writer with `KEY`, which lies beside the playlist as `key`."""
    info, key = folder.with_suffix(".info"), folder.with_suffix(".key")
    key.write_bytes(KEY)
    info.write_text(f"key\n{key}\n")
    playlist = cut_up(clip, folder, hls_key_info_file=str(info))
    key.rename(folder / "key")
    return playlist


def lock_by_number(clip: Path, folder: Path, first: int) -> Path:
    """The same with segments numbered from `first`, each encrypted with its number."""
    playlist = cut_up(clip, folder)
    (folder / "key").write_bytes(KEY)
    for number, path in enumerate(sorted(folder.glob("*.ts")), first):
        padding = PKCS7(128).padder()
        plain = padding.update(path.read_bytes()) + padding.finalize()
        closer = Cipher(AES(KEY), CBC(number.to_bytes(16, "big"))).encryptor()
        path.write_bytes(closer.update(plain) + closer.finalize())
    text = playlist.read_text().replace(
        "#EXT-X-MEDIA-SEQUENCE:0\n",
        f'#EXT-X-MEDIA-SEQUENCE:{first}\n#EXT-X-KEY:METHOD=AES-128,URI="key"\n',
    )
    playlist.write_text(text)
    return playlist
