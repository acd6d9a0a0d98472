"""What a service's refusal says, in one sentence; it comes as problem details (RFC 9457)."""

from __future__ import annotations

from dataclasses import dataclass

import httpx

from streamer.errors import ServiceError, WireError
from streamer.views import reader

LONGEST = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldError:
    """What is wrong with one field of a request."""

    field: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    title: str | None = None
    detail: str | None = None
    errors: tuple[FieldError, ...] = ()


def refusal(response: httpx.Response, url: str) -> ServiceError:
    """The error of an answer, read already, that is not the one asked for; `url`: the service's."""
    status = response.status_code
    try:
        problem = reader(Problem)(response.content)
    except WireError:
        problem = Problem()
    fields = [f"{error.field}: {error.message}" for error in problem.errors if error.message]
    said = "; ".join(fields) or problem.detail or problem.title
    if not said:
        return ServiceError(
            f"the service at {url} answered {status} {response.reason_phrase}", status=status
        )
    return ServiceError(" ".join(said.split())[:LONGEST], status=status)


def unreachable(exc: httpx.HTTPError, url: str) -> ServiceError:
    """The error of a service that did not answer."""
    if isinstance(exc, httpx.HTTPStatusError):
        return refusal(exc.response, url)
    if isinstance(exc, httpx.ReadTimeout):
        return ServiceError(f"the service at {url} did not answer in time")
    if isinstance(exc, httpx.ConnectError):
        return ServiceError(f"the service at {url} cannot be reached ({exc}): is it running?")
    why = " ".join(str(exc).split()) or type(exc).__name__
    return ServiceError(f"the service at {url} cannot be reached: {why}")
