"""An optional token: in a header for programs, in a cookie after a form for browsers."""

from __future__ import annotations

import hashlib
import hmac
import html
import os
import stat
from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, Form
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import cookie_parser
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from tshsr.errors import SettingsError

SHORTEST, LONGEST = 16, 512
"""Characters of a token."""
COOKIE, COOKIE_SECONDS = "tshsr-session", 30 * 24 * 3600
LOGIN = "/login"
OPEN = frozenset({LOGIN, "/livez", "/readyz", "/common.css", "/app.css", "/icon.svg"})
"""Paths without a token: the form, its files, and probes, which tell nothing of the index."""
NEEDED = "this server needs its token; send the header 'Authorization: Bearer TOKEN', or open / in a browser."
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>tshsr: token</title>
<link rel="icon" href="/icon.svg">
<link rel="stylesheet" href="/common.css">
<link rel="stylesheet" href="/app.css">
</head>
<body>
<main>
<h1>This server needs a token</h1>
<p role="alert">{problem}</p>
<form method="post" action="/login">
<label for="token">Token</label>
<input id="token" name="token" type="password" autocomplete="current-password" required autofocus>
<button>Open</button>
</form>
</main>
</body>
</html>
"""


class Token:
    """A token, as digests: the comparison takes the same time for every guess.

    Args:
        text: The token.
    """

    def __init__(self, text: str) -> None:
        self.digest = hashlib.sha256(text.encode()).digest()
        self.cookie = hmac.new(text.encode(), b"tshsr session", hashlib.sha256).hexdigest()
        """Value of the cookie; the token can't be computed from it."""

    def matches(self, text: str) -> bool:
        """Whether a text is the token."""
        return hmac.compare_digest(hashlib.sha256(text.encode()).digest(), self.digest)

    def admits(self, headers: Headers) -> bool:
        """Whether a request holds the token or the cookie."""
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self.matches(given.strip()):
            return True
        cookie = cookie_parser(headers.get("cookie", "")).get(COOKIE, "")
        return hmac.compare_digest(cookie.encode(), self.cookie.encode())


class Gate:
    """ASGI middleware that refuses requests without the token (401); a browser gets a form to enter it."""

    def __init__(self, app: ASGIApp, token: Token) -> None:
        self.app, self.token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request, or refuse it.

        Raises:
            HTTPException: 401.
        """
        if scope["type"] == "http" and scope["path"] not in OPEN:
            headers = Headers(scope=scope)
            if not self.token.admits(headers):
                if scope["method"] != "GET" or "text/html" not in headers.get("accept", ""):
                    raise HTTPException(401, NEEDED, {"WWW-Authenticate": "Bearer"})
                await form()(scope, receive, send)
                return
        await self.app(scope, receive, send)


def form(problem: str = "") -> Response:
    """The page that asks for the token."""
    # Under the other pages' policy, no-referrer, a browser would send the form with the origin null.
    headers = {"WWW-Authenticate": "Bearer", "Referrer-Policy": "same-origin"}
    return HTMLResponse(PAGE.format(problem=html.escape(problem)), 401, headers)


def add_login(app: FastAPI, token: Token) -> None:
    """Add the route that sets the cookie."""

    async def login(given: Annotated[str, Form(alias="token", max_length=LONGEST)]) -> Response:
        if not token.matches(given.strip()):
            return form("That is not the token of this server.")
        answer = RedirectResponse("/", 303)
        answer.set_cookie(COOKIE, token.cookie, max_age=COOKIE_SECONDS, httponly=True, samesite="lax")
        return answer

    app.add_api_route(LOGIN, login, methods=["POST"], include_in_schema=False, response_model=None)


def read_token(path: Path) -> str:
    """The token in the first line of a file.

    Raises:
        SettingsError: Where it can't be read, or is too short, or has characters that a header can't have.
    """
    try:
        with path.open(encoding="utf-8") as file:
            token = file.readline(4 * LONGEST).strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise SettingsError(f"--token-file {path} can't be read ({reason}); expected a text file.") from None
    if not (token.isascii() and token.isprintable() and " " not in token):
        raise SettingsError(f"{path}: the token has a space or a character outside ASCII; expected letters and digits.")
    if not SHORTEST <= len(token) <= LONGEST:
        raise SettingsError(
            f"{path}: the token has {len(token)} characters; expected {SHORTEST} to {LONGEST}, for example those of "
            "python -c 'import secrets; print(secrets.token_urlsafe())'."
        )
    return token


def readable_by_others(path: Path) -> bool:
    """Whether other users of this machine may read a file; False where the system has no such rights."""
    return os.name == "posix" and bool(path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH))
