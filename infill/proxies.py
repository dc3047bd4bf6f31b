"""HTTP clients that use no proxy for requests to this machine, whatever HTTP_PROXY, HTTPS_PROXY and ALL_PROXY contain.

A proxy would look for the address on its own machine. Requests to other machines follow the environment. `infill.entry`
does the same for the clients of other libraries, by NO_PROXY.
"""

import ipaddress
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx

from infill.errors import InputError


def is_local(url: str) -> bool:
    """Return whether the host of `url` is this machine: localhost, or a loopback or unspecified address."""
    try:
        host = (urlsplit(url).hostname or "").rstrip(".")
    except ValueError:
        return False
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_unspecified


def client(base_url: str, **options: Any) -> httpx.Client:
    """Return a client for `base_url`. Raises InputError for an invalid URL or a proxy that cannot be used."""
    with _explained(base_url):
        return httpx.Client(base_url=base_url, trust_env=not is_local(base_url), **options)


def async_client(base_url: str, **options: Any) -> httpx.AsyncClient:
    """Return an asynchronous client for `base_url`. Raises InputError for an invalid URL or an unusable proxy."""
    with _explained(base_url):
        return httpx.AsyncClient(base_url=base_url, trust_env=not is_local(base_url), **options)


def proxy_of(base_url: str) -> str | None:
    """Return the HTTP proxy through which `base_url` is reached; None where no proxy is needed.

    Raises InputError for an invalid URL or a proxy that cannot be used.
    """
    with _explained(base_url):
        parts = urlsplit(base_url)
        if is_local(base_url) or proxy_bypass(parts.netloc.rpartition("@")[2]):
            return None
        proxy = getproxies().get(parts.scheme) or getproxies().get("all")
        if proxy and urlsplit(proxy).scheme not in ("http", "https"):
            raise ValueError(f"it must begin with http:// or https://, got {proxy}")
        return proxy or None


@contextmanager
def _explained(base_url: str) -> Iterator[None]:
    try:
        httpx.URL(base_url)
    except httpx.InvalidURL as error:
        raise InputError(f"{base_url!r} is not a URL: {error}") from error
    try:
        yield
    except (ImportError, ValueError, httpx.InvalidURL) as error:  # a SOCKS proxy needs a package that is not installed
        names = [name for name in os.environ if name.lower() in {"http_proxy", "https_proxy", "all_proxy"}]
        raise InputError(f"the proxy in {', '.join(names) or 'the environment'} cannot be used: {error}") from error
