"""Filters of clients: comparisons of columns and values, and functions whose result is not longer than their input.

LanceDB evaluates any SQL function: one call of `repeat` or `lpad` can fill the memory or end the process.
"""

from __future__ import annotations

import re

from starlette.exceptions import HTTPException

PIECE = re.compile(r"""('(?:[^']|'')*'|"(?:[^"]|"")*"|`(?:[^`]|``)*`)|(\w+)|(\s+)|([.,()<>=!+*/%-])""")
"""A quoted value or name, a word, white space, or a sign. A backslash does not escape a quotation mark."""
KEYWORDS = frozenset({"and", "between", "case", "else", "ilike", "in", "is", "like", "not", "or", "then", "when"})
FUNCTIONS = frozenset(
    {"abs", "cast", "coalesce", "contains", "date_part", "decimal", "length", "lower", "starts_with", "trim"}
    | {"try_cast", "upper"}
)
COMMENTS = ("--", "/*")


def check_filter_text(where: str) -> None:
    """Refuse other functions, and characters and comments that could hide a call of one.

    Raises:
        HTTPException: 422.
    """
    position, before, called = 0, "", ""  # the piece directly before, and the name that a bracket would call
    while position < len(where):
        found = PIECE.match(where, position)
        if found is None or where.startswith(COMMENTS, position):
            raise refused(f"it has {where[position : position + 2]!r} outside of quotation marks")
        piece, (quoted, name, space, _) = found[0], found.groups()
        if quoted and (before[-1:].isalnum() or before.endswith("_")):  # another kind of text: E'\''
            raise refused(f"it has {before + piece[0]} without a space between")
        if piece == "(" and called and called.lower() not in KEYWORDS | FUNCTIONS:
            raise refused(f"it calls {called:.40}")
        position, before = found.end(), piece
        called = called if space else (quoted or name or "")


def refused(cause: str) -> HTTPException:
    """The refusal of a filter."""
    return HTTPException(
        422,
        f"the filter cannot be used by this server: {cause}; expected comparisons of columns with values, and of "
        f"functions {', '.join(sorted(FUNCTIONS - {'decimal'}))}.",
    )
