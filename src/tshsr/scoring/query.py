"""Checks of a query in words."""

from __future__ import annotations

import re

from tshsr.data.text import WORD
from tshsr.errors import InputError, SettingsError

MAX_WORDS = 1000
"""Maximum words of a query, far above any caption: the time of a search grows with them."""


def check_query(text: str, k: int) -> None:
    """Refuse a query without words or with too many, or k below 1.

    Raises:
        InputError: Where the query has no word, or too many.
        SettingsError: Where k is below 1.
    """
    if not any(letter.isalnum() for letter in text):
        raise InputError(f"the query has no word: {text!r}; describe what the picture shows, as in 'a dog in snow'.")
    words = sum(1 for _ in re.finditer(WORD, text))
    if words > MAX_WORDS:
        raise InputError(
            f"the query has {words:,} words; expected at most {MAX_WORDS:,}: describe the picture in a few sentences."
        )
    if k < 1:
        raise SettingsError(f"k is {k}; expected at least 1 result.")
