"""Access and limits: API keys, OpenID Connect tokens, tenants and their limits, the audit log.

Without a key file and an issuer everybody may, as on one's own machine. Limits hold in each replica by itself.
"""

import asyncio
import hashlib
import json
import logging
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import jwt
from fastapi import Request
from limits import RateLimitItem, RateLimitItemPerDay, RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import MovingWindowRateLimiter, SlidingWindowCounterRateLimiter

from infill.errors import InputError
from infill.proxies import async_client
from serving.protocol import ApiError
from serving.transformer import keys
from serving.transformer.transformer_config import TransformerConfig

PREDICTOR_KEY: Final = "INFILL_PREDICTOR_KEY"
"""Environment variable with the key that the predictor asks for, where it asks for one (vLLM's --api-key)."""
ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signatures with public keys alone: a token signed with a shared secret is refused."""
LEEWAY_S: Final = 60
"""By which the clocks of issuer and server may differ."""
FETCH_S: Final = 5.0
"""In which the issuer must answer."""
RETRY_S: Final = 10
"""Between two attempts to fetch its keys."""
KEYS_S: Final = 300.0
"""After which they are fetched again."""
MAX_TOKEN_CHARS: Final = 16_384
log: Final = logging.getLogger("kserve.infill")
audit_log: Final = logging.getLogger("infill.audit")


@dataclass(frozen=True, kw_only=True)
class Principal:
    """The sender of a request."""

    tenant: str = ""
    """The tenant, whose limits count and whose cached prompts may be used."""
    name: str = ""
    """The id of the key, or the subject of the token."""

    @property
    def salt(self) -> str:
        """Salt that keeps this tenant's cached prompts apart from those of others; empty where there are no tenants."""
        return hashlib.sha256(self.tenant.encode()).hexdigest()[:32] if self.tenant else ""


ANYBODY: Final = Principal()


def refused(message: str) -> ApiError:
    """Return status 401."""
    return ApiError(401, message, code="invalid_api_key", kind="authentication_error")


class KeyFile:
    """The keys of a file, which is read again when it changes, as a mounted Secret does."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._keys = keys.load(file)
        self._state = self._look()

    def _look(self) -> tuple[int, int, int]:
        status = self._file.stat()
        return status.st_mtime_ns, status.st_size, status.st_ino

    def find(self, text: str) -> Principal | None:
        """Return whose key `text` is. A file that has become unreadable leaves the keys as they were, and is logged."""
        try:
            state = self._look()
            if state != self._state:
                self._state = state
                self._keys = keys.load(self._file)
        except (OSError, InputError) as error:
            log.error("the key file cannot be read again, the former keys hold: %s", error)
        key = keys.find(self._keys, text, keys.today())
        return Principal(tenant=key.tenant, name=key.id) if key else None


class Issuer:
    """An OpenID Connect issuer, whose tokens are checked with its published keys.

    The keys are fetched again when they are old or lack the one that a token names, but seldom, whatever tokens come;
    while the issuer does not answer, the keys that are known hold.
    """

    def __init__(self, url: str, audience: str, tenant_claim: str) -> None:
        self._url = url.rstrip("/")
        self._audience = audience
        self._claim = tenant_claim
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched = -math.inf
        self._tried = -math.inf
        self._fetching = asyncio.Lock()

    async def find(self, token: str) -> Principal:
        """Return who holds `token`. Raise ApiError 401 for a bad one, 503 when the issuer was never reached."""
        try:
            key = await self._key(str(jwt.get_unverified_header(token).get("kid")))
            claims = jwt.decode(
                token,
                key,
                algorithms=list(ALGORITHMS),
                audience=self._audience,
                issuer=[self._url, f"{self._url}/"],
                leeway=LEEWAY_S,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.PyJWTError as error:
            raise refused(f"the token is not valid: {error}") from error
        tenant = claims.get(self._claim)
        if not isinstance(tenant, str) or not keys.TENANT.fullmatch(tenant):
            raise ApiError(403, f"the token's claim {self._claim!r} names no tenant", code="no_tenant")
        return Principal(tenant=tenant, name=str(claims["sub"])[:128])

    async def _key(self, identifier: str) -> jwt.PyJWK:
        if not self._fresh(identifier):
            async with self._fetching:
                if not self._fresh(identifier):
                    await self._fetch()
                    self._tried = time.monotonic()
        if not self._keys:
            raise ApiError(
                503, "the server cannot check tokens at the moment", code="issuer_unavailable", retry_after=RETRY_S
            )
        if identifier not in self._keys:
            raise jwt.InvalidKeyError("its key is not one of the issuer's")
        return self._keys[identifier]

    def _fresh(self, identifier: str) -> bool:
        """Return whether what is known must do: it is recent, or was asked for a moment ago."""
        now = time.monotonic()
        return now - self._tried < RETRY_S or (now - self._fetched < KEYS_S and identifier in self._keys)

    async def _fetch(self) -> None:
        """Take over the issuer's keys; where they cannot be had, keep the former ones and log why."""
        try:
            async with asyncio.timeout(FETCH_S), async_client(self._url) as client:
                described = await _json(client, f"{self._url}/.well-known/openid-configuration")
                if described["issuer"].rstrip("/") != self._url:
                    raise ValueError(f"it calls itself {described['issuer']}")
                published = jwt.PyJWKSet.from_dict(await _json(client, described["jwks_uri"]))
        except (
            TimeoutError,
            httpx.HTTPError,
            jwt.PyJWTError,
            ValueError,
            LookupError,
            TypeError,
            AttributeError,
        ) as error:
            log.error("the issuer %s cannot be asked for its keys: %s", self._url, error or type(error).__name__)
            return
        self._keys = {key.key_id: key for key in published.keys if key.key_id and key.public_key_use in ("sig", None)}
        self._fetched = time.monotonic()


async def _json(client: httpx.AsyncClient, url: str) -> dict[str, Any]:
    answer = await client.get(url)
    answer.raise_for_status()
    value = answer.json()
    if not isinstance(value, dict):
        raise TypeError(f"{url} holds no JSON object")
    return value


class TenantMeter:
    """The part of its limits that each tenant has used."""

    def __init__(self, config: TransformerConfig) -> None:
        storage = MemoryStorage()
        self._exact = MovingWindowRateLimiter(storage)
        self._rough = SlidingWindowCounterRateLimiter(storage)  # of a day's tokens not each one is kept
        self._requests = config.tenant_requests and RateLimitItemPerMinute(config.tenant_requests)
        self._tokens = config.tenant_tokens and RateLimitItemPerDay(config.tenant_tokens)

    async def enter(self, tenant: str) -> None:
        """Count a request. Raise ApiError 429, with the time to wait, when the tenant has used what it may."""
        if self._tokens and not await self._rough.test(self._tokens, "tokens", tenant):
            raise await self._spent(self._rough, self._tokens, "tokens", tenant, "tokens a day")
        if self._requests and not await self._exact.hit(self._requests, "requests", tenant):
            raise await self._spent(self._exact, self._requests, "requests", tenant, "requests a minute")

    async def spend(self, tenant: str, tokens: int) -> None:
        """Count the tokens of an answer. The one that goes over the limit is the last that is given."""
        if self._tokens and tokens:
            left = (await self._rough.get_window_stats(self._tokens, "tokens", tenant)).remaining
            await self._rough.hit(self._tokens, "tokens", tenant, cost=max(1, min(tokens, left)))

    async def _spent(
        self,
        limiter: MovingWindowRateLimiter | SlidingWindowCounterRateLimiter,
        item: RateLimitItem,
        kind: str,
        tenant: str,
        what: str,
    ) -> ApiError:
        stats = await limiter.get_window_stats(item, kind, tenant)
        wait = max(1, math.ceil(stats.reset_time - time.time()))
        return ApiError(
            429,
            f"{tenant} may use {item.amount} {what}; try again in {wait} s",
            code="rate_limit_exceeded",
            kind="rate_limit_error",
            retry_after=wait,
        )


class Access:
    """The server's rule: who is let in."""

    def __init__(self, config: TransformerConfig) -> None:
        """Read the key file. Raise InputError when it is none."""
        self._file = KeyFile(Path(config.keys)) if config.keys else None
        self._issuer = (
            Issuer(config.oidc_issuer, config.oidc_audience, config.oidc_tenant) if config.oidc_issuer else None
        )
        self.open = not (self._file or self._issuer)
        self._meter = TenantMeter(config)
        key = os.environ.get(PREDICTOR_KEY, "")
        self.predictor_headers = [(b"authorization", f"Bearer {key}".encode())] if key else []

    async def identify(self, request: Request) -> Principal:
        """Return who asks. Raise ApiError 401 where that is nobody who may."""
        if self.open:
            return ANYBODY
        scheme, _, token = request.headers.get("authorization", "").strip().partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise refused("this server asks for a key: send it as Authorization: Bearer KEY")
        if len(token) > MAX_TOKEN_CHARS:
            raise refused(f"the key has {len(token)} characters, at most {MAX_TOKEN_CHARS} are allowed")
        if self._file and (token.startswith(keys.PREFIX) or not self._issuer):
            principal = self._file.find(token)
            if principal is None:
                raise refused("the key is unknown, revoked or expired; ask whoever runs this server for another one")
            return principal
        if self._issuer is None or token.startswith(keys.PREFIX):
            raise refused("this server takes tokens of its issuer, not keys")
        return await self._issuer.find(token)

    async def enter(self, principal: Principal) -> None:
        """Count a request of `principal`. Raise ApiError 429 when its tenant has used what it may."""
        if not self.open:
            await self._meter.enter(principal.tenant)

    async def spend(self, principal: Principal, tokens: int) -> None:
        """Count the tokens of an answer to `principal`."""
        if not self.open:
            await self._meter.spend(principal.tenant, tokens)

    def audit(self, event: str, principal: Principal, rid: str, **facts: Any) -> None:
        """Log what `principal` did: who, when and how much, but no code and no file name."""
        if not self.open:
            row = {"time": round(time.time(), 3), "event": event, "request": rid, "tenant": principal.tenant}
            audit_log.info(json.dumps({**row, "name": principal.name, **facts}))
