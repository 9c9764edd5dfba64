"""Shape annotations are checked while the tests run: in which packages and modules, and each combination once."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import wraps
from typing import Any

from beartype import beartype

CHECKED = (
    "tshsr.models",
    "tshsr.explain.attribution",
    "tshsr.explain.binding",
    "tshsr.explain.pointing_game",
    "tshsr.pretrained.text",
    "tshsr.training.hard_captions",
    "tshsr.training.losses",
    "tshsr.training.negatives",
    "tshsr.training.objective",
)
"""Packages and modules whose annotations are checked."""


class ChangingError(Exception):
    """A value whose check may come out differently the next time."""


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """beartype, without the checks of arguments that it has accepted: the outcome depends on types, dtypes and shapes.

    jaxtyping decorates functions that return nothing, or the result of the checked function, which it ignores.
    """
    check = beartype(function)
    accepted: set[Hashable] = set()

    @wraps(function)
    def once(*arguments: Any, **named: Any) -> Any:
        try:
            key = tuple(map(described, arguments)), tuple(named), tuple(map(described, named.values()))
        except ChangingError:
            return check(*arguments, **named)
        if key in accepted:
            return None
        answer = check(*arguments, **named)
        accepted.add(key)
        return answer

    return once


def described(value: object) -> Hashable:
    """All that a check can see of a value.

    Raises:
        ChangingError: For collections of unlike items: beartype checks one of them, drawn at random.
    """
    kind = type(value)
    if (shape := getattr(value, "shape", None)) is not None:
        return kind, shape, getattr(value, "dtype", None)
    if kind in (int, str, bool):
        return kind, value  # Literal
    if isinstance(value, dict):
        return kind, of_all(value), of_all(value.values())
    if isinstance(value, list | tuple | set | frozenset):
        return kind, of_all(value)
    return kind


def of_all(items: Any) -> Hashable:
    """What all items have in common, and whether there are any."""
    kinds = set(map(described, items))
    if len(kinds) > 1:
        raise ChangingError
    return frozenset(kinds)
