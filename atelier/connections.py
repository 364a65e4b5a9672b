"""Connections to servers: proxies and certificates of the environment, and causes in words."""

import os
import re
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from atelier.errors import ParamsError

if TYPE_CHECKING:
    import ssl

_LONGEST = 300  # characters of a cause
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")
_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
# OpenSSL's codes of a certificate that no trusted authority vouches for.
_UNTRUSTED = frozenset({18, 19, 20, 21})


def refuse_environment() -> None:
    """Refuse proxies and certificates of the environment with which no client can be made.

    Raises:
        ParamsError: Names the variable and the cure; a proxy's password is not shown.
    """
    import httpx2

    try:
        httpx2.Client().close()
    except OSError as error:
        raise _certificates(error) from None
    except (ImportError, ValueError, httpx2.InvalidURL):
        raise _proxy() from None


def refuse_address(variable: str) -> None:
    """Refuse a variable of the environment that is set to no address of a server.

    Raises:
        ParamsError: Names the variable.
    """
    value = os.environ.get(variable)
    if value and not is_address(value):
        raise ParamsError(
            f"the environment variable {variable} is {_without_password(value)!r}, and should "
            "be an address, as https://host:port; correct it, or unset it"
        )


def is_address(url: str) -> bool:
    """Return whether ``url`` is an address of HTTP with a host and a port that can exist."""
    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _proxy() -> ParamsError:
    """The error for the first proxy with which no client can be made."""
    import httpx2

    for variable in _proxy_variables():
        value = os.environ[variable]
        shown = f"the environment variable {variable} is {_without_password(value)!r}"
        try:
            httpx2.Client(proxy=value if "://" in value else f"http://{value}").close()
        except ImportError:
            return ParamsError(
                f"{shown}, a SOCKS proxy, for which the package socksio is not installed; "
                "`pip install 'httpx2[socks]'`, or unset the variable"
            )
        except (ValueError, httpx2.InvalidURL):
            return ParamsError(
                f"{shown}, and should be the address of a proxy, as http://host:8080; correct "
                "it, or unset it"
            )
    return ParamsError("the proxies that the environment names cannot be used; unset them")


def why_taken(host: str, port: int) -> str:
    """Return why no server can listen at an address and port; ``""`` if one can."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((host, port))
        except OSError as error:
            return error.strerror or str(error)
    return ""


def cause(error: BaseException) -> str:
    """Return the innermost cause of an error in one line."""
    inner = _chain(error)[-1]
    text = " ".join(str(inner).split())
    if not text:
        return type(inner).__name__
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"


def advice(url: str, error: BaseException) -> str:
    """Return what of the environment a failed connection to ``url`` hangs on; often nothing."""
    import ssl
    import urllib.request

    certificate = [one for one in _chain(error) if isinstance(one, ssl.SSLError)]
    if certificate:
        return _about_certificate(certificate[-1])
    host = urlsplit(url).hostname or ""
    if urllib.request.proxy_bypass(host):
        return ""
    wanted = (f"{urlsplit(url).scheme}_proxy", "all_proxy")
    for variable in _proxy_variables():
        if variable.lower() in wanted:
            proxy = _without_password(os.environ[variable])
            way = f"; it went through the proxy of {variable}, {proxy}"
            return f"{way} (NO_PROXY={host} avoids it)"
    return ""


def _about_certificate(error: "ssl.SSLError") -> str:
    if getattr(error, "verify_code", None) in _UNTRUSTED:
        now = os.environ.get("SSL_CERT_FILE")
        return (
            "; no authority known here vouches for the server's certificate: let the "
            f"environment variable SSL_CERT_FILE{f', now {now},' if now else ''} name a PEM "
            "file with it or with its authority"
        )
    if hasattr(error, "verify_code"):
        return ""
    return "; does the server speak http where the address says https?"


def _chain(error: BaseException) -> list[BaseException]:
    """An error and its causes, the innermost last; of several at once the first."""
    chain: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in chain:
        chain.append(following)
        following = _inner(following)
    return chain


def _inner(error: BaseException) -> BaseException | None:
    if isinstance(error, BaseExceptionGroup):
        return error.exceptions[0]
    # A library may hide the error of the system ("from None"), which says the most.
    hidden = isinstance(error.__context__, OSError | BaseExceptionGroup) or not str(error)
    return error.__cause__ or (error.__context__ if hidden else None)


def _proxy_variables() -> Iterator[str]:
    """The variables of proxies that are set, those that win first."""
    for name in _PROXIES:
        for variable in (name, name.upper()):
            if os.environ.get(variable):
                yield variable


def _without_password(address: str) -> str:
    return re.sub(r"(?s)^([^:/]*:?//)?.*@", r"\1…@", address)


def _certificates(error: OSError) -> ParamsError:
    """The error for certificates that cannot be read."""
    for variable in _CERTIFICATES:
        path = os.environ.get(variable)
        if path:
            return ParamsError(
                f"the environment variable {variable} names {path}, which cannot be used "
                f"({cause(error)}); let it name a PEM file of certificates, or unset it"
            )
    return ParamsError(f"the certificates of this machine cannot be used ({cause(error)})")
