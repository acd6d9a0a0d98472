"""Who calls: a token's owner, or everybody on this machine where there are no tokens."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Annotated
from urllib.parse import unquote

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyCookie, HTTPAuthorizationCredentials, HTTPBearer
from fastapi.security.utils import get_authorization_scheme_param

from streamer.api.problems import Refusal
from streamer.api.service import Here
from streamer.config import TokenSettings
from streamer.jobs import LOCAL

COOKIE = "streamer_token"

BEARER = HTTPBearer(
    auto_error=False, description="A token of the setting api.tokens, where there are any."
)
KEY_COOKIE = APIKeyCookie(
    name=COOKIE,
    auto_error=False,
    description="The token, percent-encoded: for GET only, because EventSource sends no headers.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """On whose behalf a request is made."""

    tenant: str
    admin: bool
    """Sees all jobs, and may scale the pools."""
    max_jobs: int | None
    """Unfinished ones at a time."""

    def sees(self, tenant: str) -> bool:
        return self.admin or tenant == self.tenant


EVERYBODY = Caller(tenant=LOCAL, admin=True, max_jobs=None)


async def identify(
    request: Request,
    here: Here,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Security(BEARER)],
    cookie: Annotated[str | None, Security(KEY_COOKIE)],
) -> Caller:
    """The caller of a request; raises Refusal (401) for one that is not known."""
    tokens = here.settings.api.tokens
    if not tokens:
        return EVERYBODY
    given = bearer.credentials if bearer else None
    if given is None and cookie and request.method == "GET":
        given = unquote(cookie)
    owner = _owner(given, tokens)
    return Caller(tenant=owner.name, admin=owner.admin, max_jobs=owner.max_jobs)


async def administrate(caller: Known) -> Caller:
    """The caller, if it may scale the pools; raises Refusal (403)."""
    if not caller.admin:
        raise Refusal(403, "only a token with `admin` may do this")
    return caller


Known = Annotated[Caller, Depends(identify)]
Admin = Annotated[Caller, Depends(administrate)]


def check_bearer(authorization: str | None, tokens: Sequence[TokenSettings]) -> None:
    """Raises Refusal (401) for a header of one who is not known, where there are tokens."""
    scheme, given = get_authorization_scheme_param(authorization)
    if tokens:
        _owner(given if scheme.lower() == "bearer" else None, tokens)


def _owner(given: str | None, tokens: Sequence[TokenSettings]) -> TokenSettings:
    """Takes as long for every token, known or not. Raises Refusal (401)."""
    if not given:
        raise _unknown("a token is needed: Authorization: Bearer …", "")
    digest, found = _digest(given), None
    for token in tokens:
        if hmac.compare_digest(digest, _digest(token.token.get_secret_value())):
            found = token
    if found is None:
        raise _unknown("the token is not known", ', error="invalid_token"')
    return found


def _digest(token: str) -> bytes:
    return sha256(token.encode("utf-8", "surrogatepass")).digest()


def _unknown(detail: str, error: str) -> Refusal:
    return Refusal(401, detail, headers={"WWW-Authenticate": f'Bearer realm="streamer"{error}'})
