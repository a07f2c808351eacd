"""Who gets in: which hosts the server answers to, which web pages may use it, which keys.

A web page in the user's browser can send requests to this machine. It cannot hide its Origin, nor
the name it asked for: that is what is checked here, before anything else is done.
"""

from __future__ import annotations

import hashlib
import hmac
import socket
from collections.abc import Sequence

from msgspec import Struct
from starlette.datastructures import Headers
from starlette.responses import Response

from server.addresses import host_name, is_address, is_loopback
from server.errors import Forbidden, InvalidApiKey, InvalidRequest, quote

EXPOSED_HEADERS = "x-request-id, request-id, x-ignored-params, openai-processing-ms, retry-after"
ALLOWED_METHODS = "GET, POST, DELETE, HEAD"
PREFLIGHT_SECONDS = "600"
OPEN_PATHS = frozenset({"/health"})
"""Need no key."""

_OTHER_SITES = frozenset({"cross-site", "same-site"})


class Origins(Struct, frozen=True):
    """The web pages that may use the server: `scheme://host[:port]`, with `*` for any port or, as
    `scheme://*`, for any host; `*` alone is everybody."""

    patterns: tuple[str, ...] = ()

    def __contains__(self, origin: str) -> bool:
        return any(_matches(origin.lower(), pattern.lower()) for pattern in self.patterns)


class Hosts(Struct, frozen=True):
    """The names that the server answers to, beside loopback names and IP addresses.

    A page that points a name of its own at this machine (DNS rebinding) has to ask for that name.
    """

    names: frozenset[str] = frozenset()

    @classmethod
    def of(cls, bound: str, allowed: Sequence[str]) -> Hosts:
        """`bound` is the address listened on: its name counts, as does this machine's own."""
        own = () if is_loopback(bound) else (socket.gethostname(),)
        return cls(frozenset(name.lower() for name in (bound, *own, *allowed)))

    def __contains__(self, name: str) -> bool:
        name = name.lower().removesuffix(".")
        if name in self.names or name == "localhost" or name.endswith(".localhost"):
            return True
        return "*" in self.names or is_address(name)


class Keys:
    """Compared as digests: neither place nor length of a difference shows in the time taken."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._digests = [_digest(key.encode()) for key in keys]

    def check(self, headers: Headers) -> None:
        """Raises InvalidApiKey unless a key came along, or none is needed."""
        if not self._digests:
            return
        scheme, _, token = headers.get("authorization", "").partition(" ")
        given = [headers.get("x-api-key", "")]
        if scheme.lower() == "bearer":
            given.append(token.strip())
        digests = [_digest(candidate.encode("latin-1")) for candidate in given]
        # Every key is compared: the time tells nothing of which one it is.
        found = [hmac.compare_digest(key, one) for key in self._digests for one in digests]
        if not any(found):
            raise InvalidApiKey(
                "the API key is wrong" if any(given) else "this server needs an API key",
                loc=("header", "authorization"),
                headers={"www-authenticate": "Bearer"},
            )


class Gate:
    """The checks in order: host, page, key."""

    def __init__(self, hosts: Hosts, origins: Origins, keys: Sequence[str] = ()) -> None:
        self._hosts = hosts
        self._origins = origins
        self._keys = Keys(keys)

    def admit(self, method: str, path: str, headers: Headers) -> Response | None:
        """The whole answer to a preflight, else None. Raises Forbidden, InvalidRequest,
        InvalidApiKey."""
        self._check_host(headers)
        self._check_page(headers)
        if method == "OPTIONS" and "access-control-request-method" in headers:
            return self._preflight(headers)
        if path not in OPEN_PATHS:
            self._keys.check(headers)
        return None

    def cors(self, headers: Headers) -> dict[str, str]:
        """What lets a listed page read the answer; nothing for anybody else."""
        origin = headers.get("origin")
        if origin is None or origin not in self._origins:
            return {}
        return {
            "access-control-allow-origin": origin,
            "access-control-expose-headers": EXPOSED_HEADERS,
            "vary": "Origin",
        }

    def _check_host(self, headers: Headers) -> None:
        hosts = headers.getlist("host")
        if len(hosts) > 1:
            raise InvalidRequest("there must be one Host header", loc=("header", "host"))
        # Browsers always send it; HTTP/1.0 does without.
        if hosts and host_name(hosts[0]) not in self._hosts:
            raise Forbidden(
                f"this server does not answer to the host {quote(hosts[0])}; see --allowed-hosts",
                loc=("header", "host"),
                code="host_not_allowed",
            )

    def _check_page(self, headers: Headers) -> None:
        origins = headers.getlist("origin")
        for origin in origins:
            if origin not in self._origins and not _is_own(origin, headers.get("host", "")):
                raise Forbidden(
                    f"pages of {quote(origin)} may not use this server; see --allowed-origins",
                    loc=("header", "origin"),
                    code="origin_not_allowed",
                )
        if not origins and headers.get("sec-fetch-site") in _OTHER_SITES:
            raise Forbidden(
                "pages of other sites may not use this server",
                loc=("header", "sec-fetch-site"),
                code="origin_not_allowed",
            )

    def _preflight(self, headers: Headers) -> Response:
        answer = self.cors(headers) | {
            "access-control-allow-methods": ALLOWED_METHODS,
            "access-control-allow-headers": headers.get("access-control-request-headers", "*"),
            "access-control-max-age": PREFLIGHT_SECONDS,
        }
        if headers.get("access-control-request-private-network") == "true":
            answer["access-control-allow-private-network"] = "true"
        return Response(status_code=204, headers=answer)


def _matches(origin: str, pattern: str) -> bool:
    if pattern in ("*", origin):
        return True
    if not pattern.endswith("*"):
        return False
    start = pattern[:-1]
    if start.endswith("://"):
        return origin.startswith(start)
    # `http://localhost:*` must not match `http://localhost:1.evil.com`.
    host, rest = start.removesuffix(":"), origin.removeprefix(start)
    return start.endswith(":") and (origin == host or (origin != rest and rest.isdigit()))


def _is_own(origin: str, host: str) -> bool:
    """A page that this server itself, or a proxy in front of it, has served."""
    return bool(host) and origin.lower() in (f"http://{host.lower()}", f"https://{host.lower()}")


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
