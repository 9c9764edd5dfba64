"""HTML pages as single files without network access: templates with autoescaping, embedded pictures, style, script."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from tshsr.metrics.labels import label, stream_label

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
"""Content-Security-Policy of a page: nothing is loaded from elsewhere, whatever a caption contains."""


def percent(share: float) -> str:
    """0.613 as `61 %`; positive shares below 0.01 as `<1 %`."""
    return "<1 %" if 0 < share < 0.01 else f"{100 * share:.0f} %"


def _environment() -> Environment:
    """Templates of this package; every value is escaped, a missing one is an error."""
    environment = Environment(
        loader=PackageLoader("tshsr.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(label=label, stream_label=stream_label, percent=percent)
    return environment


ENVIRONMENT = _environment()


def static(name: str) -> Markup:
    """A style sheet or script of this package, not escaped: <style> and <script> decode no entities."""
    return Markup(files("tshsr.pages").joinpath("static", name).read_text(encoding="utf-8"))  # noqa: S704  # nosec B704


def render_page(template: str, **values: Any) -> str:
    """A complete page from a template that extends `document.html.jinja`."""
    values |= {
        "policy": POLICY,
        "style": static("common.css") + static("page.css"),
        "script": static("explanation.js") + static("page.js"),
    }
    return ENVIRONMENT.get_template(template).render(values)


def render_macro(template: str, macro: str, *arguments: Any) -> Markup:
    """A part of a page."""
    module = ENVIRONMENT.get_template(template).module
    rendered: Markup = getattr(module, macro)(*arguments)
    return rendered


def json_script(values: Any) -> Markup:
    """JSON in a script element; `<` is escaped, so no string can close the element."""
    text = json.dumps(values, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    text = text.replace("<", r"\u003c")
    return Markup(f'<script type="application/json">{text}</script>')  # noqa: S704  # nosec B704


@dataclass(frozen=True)
class EmbeddedPicture:
    """A picture that is embedded in a page.

    Attributes:
        id: Element id, unique in the page.
        size: Width and height of the original, in pixels.
        width: Of the embedded copy.
        height: Of the embedded copy.
        data: The copy as a data URI.
    """

    id: str
    size: tuple[int, int]
    width: int
    height: int
    data: str


def embed_pictures(pictures: Mapping[str, Image.Image], *, side: int) -> dict[str, EmbeddedPicture]:
    """Scaled copies of pictures for a page, under the same names.

    Args:
        side: Longest side in pixels; larger pictures are scaled down.
    """
    embedded = {}
    for number, (name, picture) in enumerate(pictures.items()):
        small = picture.convert("RGB")
        small.thumbnail((side, side))
        embedded[name] = EmbeddedPicture(f"picture-{number}", picture.size, *small.size, _data_uri(small))
    return embedded


def _data_uri(picture: Image.Image) -> str:
    """The picture as PNG (drawings) or JPEG (photographs), whichever is smaller."""
    png, jpeg = io.BytesIO(), io.BytesIO()
    picture.save(png, "PNG", optimize=True)
    picture.save(jpeg, "JPEG", quality=85)
    kind, data = min((("png", png.getvalue()), ("jpeg", jpeg.getvalue())), key=lambda choice: len(choice[1]))
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
