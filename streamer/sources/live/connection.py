"""Connections to rtsp(s): and rtmp(s): servers, opened through a relay."""

from __future__ import annotations

from typing import Any

import av
import httpx

from streamer.errors import SourceError
from streamer.sources.guard import FetchPolicy
from streamer.sources.info import Limits
from streamer.sources.live.relay import Relay
from streamer.sources.pyav_reader import NoVideo, Opened
from streamer.sources.url import port_of, redact, stream_url

_ANSWERS = {
    av.error.HTTPUnauthorizedError: "401 Unauthorized; give the URL with its credentials",
    av.error.HTTPForbiddenError: "403 Forbidden; check the URL and its credentials",
    av.error.HTTPNotFoundError: "404 Not Found; check the URL",
    av.error.HTTPClientError: "that the request is wrong; check the URL",
    av.error.HTTPServerError: "that something is wrong on its side; try again later",
}
_PROBE_S = 1.0  # most of a stream that is looked at before pictures are decoded


def connect(url: str, *, limits: Limits, policy: FetchPolicy) -> Opened:
    """An open stream, over TCP alone. Raises: SourceError."""
    asked, shown = stream_url(url), redact(url)
    relay = Relay(asked, limits=limits, policy=policy)

    def open_container() -> Any:
        try:
            return _open(asked, relay.port, limits)
        except (av.error.FFmpegError, OSError, ValueError) as exc:
            raise (relay.failure or _explained(exc, asked, shown)) from exc

    try:
        return Opened(relay, shown, limits, connect=open_container)
    except NoVideo as exc:
        if asked.scheme in {"rtsp", "rtsps"}:
            raise  # it has told beforehand what it has
        raise SourceError(f"{shown}: has sent no video yet; check its encoder") from exc


def _open(url: httpx.URL, port: int, limits: Limits) -> Any:
    near = url.copy_with(host="127.0.0.1", port=port)
    options = {
        "max_pixels": str(limits.max_pixels),
        "analyzeduration": str(int(_PROBE_S * 1e6)),
        "fpsprobesize": "0",
    }
    wait = (limits.connect_s + limits.read_s, None)
    if url.scheme in {"rtsp", "rtsps"}:
        options |= {
            "rtsp_transport": "tcp",
            "allowed_media_types": "video",
            "protocol_whitelist": "tcp",
            "format_whitelist": "rtsp",
        }
        return _av_open(near.copy_with(scheme="rtsp"), "rtsp", options, wait)
    options |= {
        "protocol_whitelist": "rtmp,tcp",
        "format_whitelist": "flv,live_flv",
        "rtmp_live": "live",
        "rtmp_tcurl": f"{url.scheme}://{url.raw_host.decode()}:{port_of(url)}/{_application(url)}",
    }
    return _av_open(near.copy_with(scheme="rtmp"), "flv", options, wait)


def _av_open(
    url: httpx.URL, kind: str, options: dict[str, str], wait: tuple[float, float | None]
) -> Any:
    return av.open(str(url), format=kind, options=options, metadata_errors="replace", timeout=wait)


def _application(url: httpx.URL) -> str:
    """Of rtmp://host/application/name or rtmp://host/application/instance/name."""
    parts = url.path.strip("/").split("/")
    return "/".join(parts[:2] if len(parts) > 2 else parts[:1])


def _explained(error: Exception, url: httpx.URL, shown: str) -> SourceError:
    for kind, answer in _ANSWERS.items():
        if isinstance(error, kind):
            return SourceError(f"{shown}: the server answered {answer}")
    return SourceError(
        f"{shown}: the server has no such stream, or does not speak "
        f"{url.scheme.removesuffix('s')}; check the URL"
    )
