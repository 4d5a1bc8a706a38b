"""The base of all settings: what a frozen dataclass is, without code that is generated for each of its classes.

To have `dataclasses` generate it takes 8 ms, and every start of a server would pay them.
"""

from __future__ import annotations

import dataclasses
from dataclasses import FrozenInstanceError, fields
from typing import TYPE_CHECKING, Any

__all__ = ["Settings", "group"]

if TYPE_CHECKING:
    from dataclasses import dataclass as group
else:

    def group(**_: bool):
        """Return what makes a class a group of settings. Its parameters are for type checkers."""
        return dataclasses.dataclass(init=False, repr=False, eq=False)


class Settings:
    """Settings by name. Those that are not given are as the class has them."""

    if not TYPE_CHECKING:

        def __init__(self, **settings: object) -> None:
            known = self.__dataclass_fields__
            for name in settings:
                if name not in known:
                    raise TypeError(f"{type(self).__name__}.__init__() got an unexpected keyword argument {name!r}")
            vars(self).update(settings)

        def __setattr__(self, name: str, value: object) -> None:
            raise FrozenInstanceError(f"cannot assign to field {name!r}")

        def __delattr__(self, name: str) -> None:
            raise FrozenInstanceError(f"cannot delete field {name!r}")

        def __repr__(self) -> str:
            values = ", ".join(f"{field.name}={getattr(self, field.name)!r}" for field in fields(self))
            return f"{type(self).__name__}({values})"

        def __eq__(self, other: object) -> bool:
            return _values(self) == _values(other) if type(other) is type(self) else NotImplemented

        def __hash__(self) -> int:
            return hash(_values(self))


def _values(settings: Any) -> tuple[object, ...]:
    return tuple(getattr(settings, field.name) for field in fields(settings))
