"""HTTP middleware: security headers, a limit on body size, checks of a form's origin."""

import hashlib
import hmac
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_LARGEST_BODY = 16_384  # bytes; the largest honest form has some 200
_POLICY = "Content-Security-Policy"
_HEADERS = {
    _POLICY: "default-src 'none'; img-src 'self'; style-src 'self'; "
    "script-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "X-Robots-Tag": "noindex, nofollow",
}
_PRIVATE = "no-store"  # unless a page sets its own


class Guard:
    """Middleware that refuses large bodies and foreign forms, and adds security headers."""

    def __init__(self, app: ASGIApp, *, more_policy: str = "") -> None:
        """Guard ``app``; ``more_policy`` is added to the content security policy."""
        self._app = app
        policy = _HEADERS[_POLICY]
        self._headers = _HEADERS | {_POLICY: "; ".join(filter(None, [policy, more_policy]))}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def sealed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(self._headers)
                headers.setdefault("Cache-Control", _PRIVATE)
            await send(message)

        refusal = None
        if scope["method"] == "POST":
            refusal = _refusal(Request(scope))
            body = b"" if refusal else await _body(receive)
            if body is None:
                refusal = PlainTextResponse("This form is too large.", 413)
            else:
                receive = _again(body)
        await (refusal or self._app)(scope, receive, sealed)


def form_token(token: str) -> str:
    """Return the token of a person's forms, which another site cannot know."""
    return hmac.new(token.encode(), b"form", hashlib.sha256).hexdigest()


def fits(token: str, sent: str) -> bool:
    """Say whether a form carries its ``form_token``."""
    return hmac.compare_digest(form_token(token).encode(), sent.encode())


def _refusal(request: Request) -> PlainTextResponse | None:
    """Refuse a form if the browser reports that another site sent it."""
    headers: Headers = request.headers
    site = headers.get("sec-fetch-site")
    origin = headers.get("origin")
    foreign = site not in {None, "same-origin"} or (
        origin is not None and urlsplit(origin).netloc != headers.get("host")
    )
    return PlainTextResponse("This form came from another site.", 403) if foreign else None


async def _body(receive: Receive) -> bytes | None:
    """Read the body; None if it is larger than any of ours."""
    body: bytes = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > _LARGEST_BODY:
            return None
        if not message.get("more_body", False):
            return body


def _again(body: bytes) -> Receive:
    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive
