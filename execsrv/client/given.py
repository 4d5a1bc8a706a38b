"""Classes whose objects come out of calls, so that nobody else makes one by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Given(type):
    """A kind of classes, whose `__init__` is for `made` alone."""

    _made_by: str
    """The words by which a call of the class is refused."""

    if not TYPE_CHECKING:  # which go by `__init__`, and so refuse a call for want of what it takes

        def __call__(cls, *_: Any, **__: Any) -> Any:
            """Raise `TypeError`."""
            raise TypeError(cls._made_by)


def made(kind: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
    """Return a new object of such a class."""
    new: T = type.__call__(kind, *args, **options)  # type: ignore[arg-type]  # a class, as far as types can say
    return new
