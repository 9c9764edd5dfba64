"""Shape annotations are checked while the tests run: in which packages and modules, and each combination once."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import is_dataclass
from functools import cache, wraps
from inspect import isclass
from threading import local
from types import FunctionType
from typing import Any

import jaxtyping
from beartype import beartype
from jaxtyping import install_import_hook, jaxtyped

CHECKED = (
    "tshsr.models",
    "tshsr.explain.attribution",
    "tshsr.explain.binding",
    "tshsr.explain.pointing_game",
    "tshsr.pretrained.layers",
    "tshsr.pretrained.text_network",
    "tshsr.training.hard_captions",
    "tshsr.training.losses",
    "tshsr.training.negatives",
    "tshsr.training.objective",
)
"""Packages and modules whose annotations are checked."""


class ChangingError(Exception):
    """A value whose check may come out differently the next time."""


class Given(local):
    """Results of calls that are over, of each thread."""

    def __init__(self) -> None:
        self.results: list[Any] = []


def check_on_import() -> None:
    """Check the annotations of these packages and modules, which must not be imported yet."""
    install_import_hook(CHECKED, "beartype.beartype")
    jaxtyping.jaxtyped = decorator  # what the hook puts before every function and class


def decorator(*, typechecker: Callable[..., Any]) -> Callable[[Any], Any]:
    """As `jaxtyping.jaxtyped`, but each combination is checked once."""
    return checked


def checked(item: Any) -> Any:
    """A function, method or dataclass whose annotations are checked by beartype."""
    if isclass(item):
        if is_dataclass(item) and "__init__" in vars(item):
            item.__init__ = once(item.__init__)
        return item
    if isinstance(item, classmethod | staticmethod):
        return type(item)(checked(item.__func__))
    if isinstance(item, property):
        return property(*(part and checked(part) for part in (item.fget, item.fset, item.fdel)))
    return once(item)


def once(function: Any) -> Callable[..., Any]:
    """A function, checked without the combinations that were accepted: the outcome depends on types, dtypes and shapes.

    Arguments that are new are checked before the call, as ever; a new result of arguments that are not, after it.
    """
    given = Given()
    check = jaxtyped(with_results(function, given), typechecker=beartype)
    arguments_seen: set[Hashable] = set()
    accepted: set[Hashable] = set()

    @wraps(function)
    def checked_once(*arguments: Any, **named: Any) -> Any:
        if traced():
            return function(*arguments, **named)
        try:
            key = tuple(map(described, arguments)), tuple(named), tuple(map(described, named.values()))
        except ChangingError:
            return check(*arguments, **named)
        if key not in arguments_seen:
            result = check(*arguments, **named)
            arguments_seen.add(key)
            return result
        result = function(*arguments, **named)
        try:
            both = key, described(result)
        except ChangingError:
            both = None
        if both not in accepted:
            given.results[:] = [result]
            try:
                check(*arguments, **named)
            finally:
                given.results.clear()
            accepted.add(both)
            accepted.discard(None)
        return result

    return checked_once


def traced() -> bool:
    """Whether an exporter runs the call, with sizes that are symbols."""
    from torch.compiler import is_compiling

    return is_compiling()


def with_results(function: Any, given: Given) -> Callable[..., Any]:
    """The function, but a call returns a given result where there is one; jaxtyping reads its name and module."""

    def call(*arguments: Any, **named: Any) -> Any:
        return given.results.pop() if given.results else function(*arguments, **named)

    alike = FunctionType(call.__code__, function.__globals__, closure=call.__closure__)
    return wraps(function)(alike)


def described(value: object) -> Hashable:
    """All that a check can see of a value.

    Raises:
        ChangingError: For collections of unlike items: beartype checks one of them, drawn at random.
    """
    return way(type(value))(value)


@cache
def way(kind: type) -> Callable[[Any], Hashable]:
    """How values of a type are described."""
    if hasattr(kind, "shape"):
        return lambda value: (kind, value.shape, getattr(value, "dtype", None))
    if kind in (int, str, bool):
        return lambda value: (kind, value)  # Literal
    if issubclass(kind, dict):
        return lambda value: (kind, of_all(value), of_all(value.values()))
    if issubclass(kind, list | tuple | set | frozenset):
        return lambda value: (kind, of_all(value))
    return lambda _: kind


def of_all(items: Any) -> Hashable:
    """What all items have in common, and whether there are any."""
    kinds = set(map(described, items))
    if len(kinds) > 1:
        raise ChangingError
    return frozenset(kinds)
