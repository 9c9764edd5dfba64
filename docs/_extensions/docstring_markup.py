"""Docstrings as reStructuredText: names between single backticks are code, indented blocks are formulas.

Runs on every docstring that autodoc reads, before napoleon turns `Args:` and its like into fields.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

SECTIONS = ("Args:", "Attributes:", "Returns:", "Raises:", "Yields:", "Example:", "Examples:", "Note:")
"""Headings whose indented text napoleon reads."""
BEFORE_NAPOLEON, AFTER_NAPOLEON = 400, 600


COLON = "\ue000"
"""Stands for a colon while napoleon runs, which takes what is before a colon in an attribute's docstring for a type."""


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the conversion."""
    app.connect("autodoc-process-docstring", before_napoleon, priority=BEFORE_NAPOLEON)
    app.connect("autodoc-process-docstring", after_napoleon, priority=AFTER_NAPOLEON)
    app.connect("autodoc-process-signature", shorten)
    return {"parallel_read_safe": True}


def before_napoleon(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Convert a docstring in place."""
    lines[:] = converted(lines)
    if what in ("attribute", "data", "property") and lines:
        lines[0] = lines[0].replace(":", COLON)


def after_napoleon(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Escape the asterisks of shapes, such as `Float[Tensor, "*pairs words"]`, in the fields that napoleon adds."""
    lines[:] = [
        short(line).replace("*", "\\*") if line.strip().startswith(":type:") else line.replace(COLON, ":")
        for line in lines
    ]


def shorten(
    app: Sphinx, what: str, name: str, obj: object, options: object, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Types by their last name, and defaults that Sphinx's parser of signatures can read."""
    if signature is not None:
        signature = short(signature).replace("<factory>", "...")
    return signature, None if returns is None else short(returns)


def short(types: str) -> str:
    """Types without the modules that they are from."""
    return re.sub(
        r"~?\b(?:jaxtyping|torch(?=\.Tensor)|numpy|collections\.abc|pathlib|typing)\.(?=[A-Za-z])", "", types
    ).replace("~", "")


def converted(lines: list[str]) -> list[str]:
    """The lines as reStructuredText."""
    result: list[str] = []
    in_section = in_block = False
    for line in lines:
        indented = line.startswith(" ")
        if line.strip() in SECTIONS and not indented:
            in_section = True
        elif line and not indented:
            in_section = False
        if in_block and line and not indented:
            in_block = False
            result.append("")
        if indented and not in_section and not in_block and opens_block(result):
            in_block = True
            result += ["::", ""]
        result.append(line if in_block else inline(line))
    return result


def opens_block(before: list[str]) -> bool:
    """Whether an indented line begins a formula: not where it goes on a list item or a definition."""
    return not before or not before[-1].strip()


def inline(line: str) -> str:
    """One line of prose: code between backticks stays as it is, all other special characters are escaped."""
    parts = re.split(r"(``[^`]+``|(?<!:)`[^`]+`(?!_))", line)
    return "".join(code(part) if part.startswith("`") else escaped(part) for part in parts)


def code(part: str) -> str:
    """A literal."""
    return f"``{part.strip('`')}``"


def escaped(text: str) -> str:
    """Prose without markup: no emphasis by asterisks, substitutions by bars or references by final underscores."""
    return re.sub(r"(?<!\w)\*(?=\S)|\||(?<=\w)_(?!\w)|(?<=\S)\*(?!\w)", lambda match: "\\" + match[0], text)
