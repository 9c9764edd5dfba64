"""Routes for browsers: the files of the search page, and the API reference as Swagger UI served from this machine."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from importlib.resources import files
from pathlib import PurePosixPath

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import Response

from tshsr.metrics.labels import LABELS, STREAM_CHOICES
from tshsr.pages.document import static
from tshsr.server.guard import SECURITY

CSS, JAVASCRIPT = "text/css; charset=utf-8", "text/javascript; charset=utf-8"
HTML, SVG = "text/html; charset=utf-8", "image/svg+xml"
MEDIA_TYPES = {".css": CSS, ".html": HTML, ".js": JAVASCRIPT, ".svg": SVG}
PAGE = ("index.html", "app.css", "app.js", "dialog.js", "figures.js", "keys.js", "picture.js", "theme.js", "icon.svg")
"""Files of the search page."""
SHARED = ("common.css", "explanation.js")
"""Files that it shares with the pages of `tshsr explain` and of reports. No other file on the disk has a URL."""
SWAGGER = {"swagger-ui-bundle.js": JAVASCRIPT, "swagger-ui.css": CSS}
"""Files of Swagger UI, from the package fastapi-offline: FastAPI itself links to a CDN (decision 8)."""
START = "/docs/start.js"
"""The script of Swagger UI's page."""
REVALIDATE = {"cache-control": "no-cache"}
"""Browsers revalidate the page and its script, which must match the running server."""


def add_page(app: FastAPI) -> None:
    """Add the routes of the search page."""
    folder = files("tshsr.server").joinpath("page")
    contents = {name: folder.joinpath(name).read_bytes() for name in PAGE}
    contents |= {name: static(name).encode() for name in SHARED}
    contents["labels.js"] = labels_script().encode()
    for name, content in contents.items():
        path = "/" if name == "index.html" else f"/{name}"
        app.add_api_route(path, constant(content, media_type(name)), include_in_schema=False)


def media_type(name: str) -> str:
    """The media type of a file of the page."""
    return MEDIA_TYPES[PurePosixPath(name).suffix]


def labels_script() -> str:
    """The display names of scores and streams as a module."""
    return "".join(
        f"export const {name} = {json.dumps(labels, ensure_ascii=False)};\n"
        for name, labels in (("SCORES", LABELS), ("STREAMS", STREAM_CHOICES))
    )


def add_docs(app: FastAPI) -> None:
    """Add the API reference at /docs."""
    folder = files("fastapi_offline").joinpath("static")
    for name, kind in SWAGGER.items():
        app.add_api_route(f"/docs/{name}", constant(folder.joinpath(name).read_bytes(), kind), include_in_schema=False)
    page = get_swagger_ui_html(
        openapi_url="/openapi.json",
        title=f"{app.title}: API reference",
        swagger_js_url="/docs/swagger-ui-bundle.js",
        swagger_css_url="/docs/swagger-ui.css",
        swagger_favicon_url="/icon.svg",
        swagger_ui_parameters={"defaultModelsExpandDepth": 0},  # schemas of answers: collapsed
    )
    html, script = outside(bytes(page.body).decode())
    app.add_api_route(START, constant(script.encode(), JAVASCRIPT), include_in_schema=False)
    policy = SECURITY["content-security-policy"].replace("img-src 'self'", "img-src 'self' data:")  # embedded icons
    headers = {"content-security-policy": policy}
    app.add_api_route("/docs", constant(html.encode(), HTML, headers), include_in_schema=False)


def outside(html: str) -> tuple[str, str]:
    """A page with its one inline script moved to a file, as the content security policy requires, and the script."""
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    return html.replace(f"<script>{script}</script>", f'<script src="{START}"></script>'), script


def constant(content: bytes, kind: str, headers: Mapping[str, str] | None = None) -> Callable[[], Awaitable[Response]]:
    """An endpoint that returns the same bytes each time."""

    async def respond() -> Response:
        return Response(content, media_type=kind, headers={**REVALIDATE, **(headers or {})})

    return respond
