"""A camera that goes away twice for 20 s and comes back in another size: what the job says of it.

    python -m tests.bench.cuts [--away 20] [CLIP]

One RTSP job; nobody touches the service. For each time that the server is away there must be a gap
event whose span is, to ± 1 s, that in which nothing of the camera's passed on the wire; captions
must go on after it, and no worker may have been replaced. Without a clip, one is rendered.
"""

from __future__ import annotations

import argparse
import datetime as dt
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from streamer.events import Event
from streamer.groups import head_of, last_group
from tests.bench.account import WITHOUT_PICTURES
from tests.bench.clips import some_clips
from tests.bench.follower import Follower
from tests.integration.cutting_proxy import CuttingProxy, Silence
from tests.servers.rtsp import RtspServer, rtsp_server
from tests.service import Service, service

TOLERANCE_S = 1.0
RESUMED_S = 60.0
SETTINGS = {
    "FETCH__ALLOW_NETWORKS": '["127.0.0.0/8"]',
    # a server that is back is found at once: what is measured is the outage, not the wait
    "LIVE__RETRY_S": "0.25",
    "LIVE__RETRY_MAX_S": "0.5",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """An outage beside the gap that was told for it."""

    away: Silence
    """The server's absence."""
    outage: Silence
    """On the wire."""
    gap: Event
    from_s: float
    to_s: float
    """The gap's span in Unix seconds."""

    @property
    def early_s(self) -> float:
        return self.from_s - self.outage.from_s

    @property
    def late_s(self) -> float:
        return self.to_s - self.outage.to_s

    @property
    def right(self) -> bool:
        return abs(self.early_s) <= TOLERANCE_S and abs(self.late_s) <= TOLERANCE_S

    def __str__(self) -> str:
        return (
            f"server away for {self.away.to_s - self.away.from_s:.1f} s, "
            f"wire silent for {self.outage.to_s - self.outage.from_s:.1f} s: "
            f"gap {self.gap.id} of {self.gap.t1 - self.gap.t0:.1f} s, "
            f"begins {self.early_s:+.2f} s, ends {self.late_s:+.2f} s beside the silence"
            f"{'' if self.right else ': WRONG'}   ({self.gap.reason})"
        )


def unix(stamp: str | None) -> float:
    """Of an event's wall clock."""
    assert stamp is not None, "a live job's event has no wall clock"
    return dt.datetime.fromisoformat(stamp).timestamp()


def take_away(camera: RtspServer, away_s: float) -> Silence:
    """Stops the server and starts it again."""
    began = time.time()
    camera.stop()
    time.sleep(max(0.0, began + away_s - time.time()))
    camera.start()
    return Silence(from_s=began, to_s=time.time())


def told_of(
    absences: Sequence[Silence], silences: Sequence[Silence], events: Sequence[Event]
) -> list[Told]:
    """For every absence the silence and the gap that share most with it; without one, nothing."""
    gaps = {
        Silence(from_s=unix(event.wall0), to_s=unix(event.wall1)): event
        for event in events
        if event.event == "gap"
    }
    found = []
    for away in absences:
        silence, gap = _nearest(away, silences), _nearest(away, list(gaps))
        if silence and gap:
            found.append(
                Told(
                    away=away,
                    outage=silence,
                    gap=gaps[gap],
                    from_s=gap.from_s,
                    to_s=gap.to_s,
                )
            )
    return found


def _nearest(away: Silence, spans: Sequence[Silence]) -> Silence | None:
    def shared(span: Silence) -> float:
        return min(span.to_s, away.to_s) - max(span.from_s, away.from_s)

    return max((span for span in spans if shared(span) > 0), key=shared, default=None)


def wait_pictures(events: Sequence[Event], after: float, timeout_s: float = RESUMED_S) -> float:
    """Until something was said about pictures that are younger than `after`; seconds since then."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if events and (last := events[-1]).event not in WITHOUT_PICTURES:
            seen = unix(last.wall0)
            if seen > after:
                return seen - after
        time.sleep(0.1)
    raise AssertionError(f"no caption for {timeout_s:g} s")


def grid(running: Service, job: str) -> tuple[int, int]:
    """Cells of the newest group's pictures."""
    heads = [head_of(entry, job) for entry in last_group(running.queue, job)]
    return heads[0].grid


def _wait_grid(running: Service, job: str, was: tuple[int, int]) -> None:
    running.wait(lambda: grid(running, job) != was, "another grid", 30)


def boots(running: Service) -> Mapping[str, str]:
    return {name: report.boot for name, report in running.workers().items()}


def show(
    running: Service,
    camera: RtspServer,
    name: str,
    *,
    sizes: Sequence[tuple[int, int]],
    away_s: float,
    say: Callable[[str], None],
) -> bool:
    """Two outages and a change of size on one job; whether all went as it must."""
    events: list[Event] = []
    with (
        CuttingProxy(camera.url(name)) as proxy,
        Follower(running.queue, lambda job, told, at: events.extend(told)) as follower,
    ):
        source = {"fps": 2, "chunk_s": 0.5, "live": True}
        job = running.submit(f"rtsp://127.0.0.1:{proxy.port}/{name}", source=source)
        followed = follower.add(job)
        running.wait(lambda: len(followed.pictured) >= 6, "the sixth caption")
        before, absences = boots(running), []
        for _ in range(2):
            time.sleep(3.0)
            absences.append(take_away(camera, away_s))
            resumed_s = wait_pictures(events, absences[-1].to_s)
            say(f"captions resume {resumed_s:.1f} s after the server is back")
        time.sleep(3.0)
        for width, height in sizes:
            was, changed_at = grid(running, job), time.time()
            camera.resize(name, width, height)
            resumed_s = wait_pictures(events, changed_at + 1.0)
            _wait_grid(running, job, was)
            say(
                f"{width} × {height}: {was} cells became {grid(running, job)}; "
                f"captions go on after {resumed_s + 1:.1f} s"
            )
        time.sleep(3.0)
        told = told_of(absences, proxy.silences, events)
        for one in told:
            say(str(one))
        account = followed.account
        gaps = account.kinds["gap"] + account.kinds["skipped"]
        say(
            f"{account.chunks} chunks, {account.missing} missing, {account.doubled} doubled, "
            f"{account.disordered} out of order, {account.torn} spans torn, {gaps} gaps"
        )
        for sentence in account.faults:
            say(f"    {sentence}")
        replaced = sorted(n for n, boot in boots(running).items() if before.get(n) != boot)
        say(f"workers replaced: {', '.join(replaced) or 'none'}")
        right = len(told) == len(absences) and all(one.right for one in told)
        running.queue.delete_job(job)
    return right and account.whole and not replaced


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("clip", nargs="*", type=Path)
    parser.add_argument("--away", type=float, default=20.0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        clip = some_clips(given.clip, Path(folder))[0].absolute()
        with (
            rtsp_server({"cam": clip}) as camera,
            service(Path(folder, "redis"), Path(folder), **SETTINGS) as running,
        ):
            running.wait_ready(["decode-1", "tokenize-1", "caption-1"])
            right = show(
                running,
                camera,
                "cam",
                sizes=[(320, 240)],
                away_s=given.away,
                say=lambda line: print(line, flush=True),  # noqa: T201
            )
    if not right:
        sys.exit("not as it must be")


if __name__ == "__main__":
    main()
