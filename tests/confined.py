"""Commands with fewer rights, for tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from execsrv._processes.confine import start
from execsrv._processes.confine.layers import Means
from execsrv._processes.confine.places import Access, Confinement, Place

needs_confinement = pytest.mark.skipif(not isinstance(start.means(), Means), reason="nothing can be confined here")


def confinement(places: dict[str | Path, Access], *, network: bool = False) -> Confinement:
    """Return a confinement with such places, all of which are there."""
    made = [Place(str(path).encode(), access, Path(path).is_dir(), access == "none") for path, access in places.items()]
    return Confinement(tuple(sorted(made, key=lambda place: place.depth)), network)
