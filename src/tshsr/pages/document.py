"""The shell of every page: one HTML file without a network, with its pictures, style and script inside."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from PIL import Image

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
"""What a browser may load for a page of ours: nothing from outside, whatever a caption says."""

LABELS = {
    "fused": "Both streams, fused",
    "word_stream": "Word stream alone",
    "region_stream": "Region stream alone",
    "pooled": "Pooled vectors, v·t",
}
"""How scores are called on a page; others by `label`."""


def escape(text: str) -> str:
    """Text that is safe inside an element or a quoted attribute; captions and file names are untrusted."""
    return html.escape(text, quote=True)


def label(name: str) -> str:
    """A score's or stream's name as people read it: `level_0` becomes `Level 0`. Not escaped."""
    return LABELS.get(name, name.replace("_", " ").capitalize())


def stream_label(name: str) -> str:
    """A stream's name where it is not compared with others: `Word stream`; escaped."""
    return escape(label(name).removesuffix(" alone"))


def reading_order(name: str) -> tuple[int, str]:
    """Sorts score names: the fused score, its streams, the pooled score, then the others."""
    order = list(LABELS)
    return (order.index(name) if name in order else len(order), name)


def percent(share: float) -> str:
    """0.613 as `61 %`, and what is too small to be seen as `<1 %`. Not escaped."""
    return "<1 %" if 0 < share < 0.01 else f"{100 * share:.0f} %"


def json_script(values: Any) -> str:
    """Data for the page's script: no text in it can end the element."""
    text = json.dumps(values, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    text = text.replace("<", r"\u003c")
    return f'<script type="application/json">{text}</script>'


def picture_symbols(pictures: Mapping[str, Image.Image], *, side: int) -> str:
    """Every picture once, to be drawn by `picture_use` as often as needed.

    Args:
        pictures: Pictures by element id.
        side: Longest side in pixels; larger pictures are made smaller.
    """
    symbols = []
    for name, picture in pictures.items():
        small = picture.convert("RGB")
        small.thumbnail((side, side))
        width, height = small.size
        symbols.append(
            f'<symbol id="{escape(name)}" viewBox="0 0 {width} {height}">'
            f'<image width="{width}" height="{height}" href="{_data_uri(small)}"/></symbol>'
        )
    return f'<svg class="symbols" width="0" height="0" aria-hidden="true">{"".join(symbols)}</svg>'


def picture_use(name: str, size: tuple[int, int], description: str) -> str:
    """A picture of `picture_symbols`, in its own proportions, with a description for those who can't see it."""
    width, height = size
    return (
        f'<svg class="picture" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(description)}">'
        f'<use href="#{escape(name)}" width="{width}" height="{height}"/></svg>'
    )


def _data_uri(picture: Image.Image) -> str:
    """The picture as PNG (drawings) or JPEG (photographs), whichever is smaller."""
    png, jpeg = io.BytesIO(), io.BytesIO()
    picture.save(png, "PNG", optimize=True)
    picture.save(jpeg, "JPEG", quality=85)
    kind, data = min((("png", png.getvalue()), ("jpeg", jpeg.getvalue())), key=lambda choice: len(choice[1]))
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def document(title: str, body: str) -> str:
    """A complete page.

    Args:
        title: Plain text.
        body: HTML of the page's main element.
    """
    resources = files("tshsr.pages")
    style = resources.joinpath("page.css").read_text(encoding="utf-8")
    script = resources.joinpath("explain.js").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n<script>\n{script}</script>\n</body>\n</html>\n"
    )
