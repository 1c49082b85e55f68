"""The registry: how the targets of every protocol are made."""

from __future__ import annotations

from unveil.assembly.protocols.base import Maker
from unveil.assembly.protocols.paired import NoTruth, Paired
from unveil.assembly.protocols.simulate import Simulate
from unveil.assembly.protocols.transplant import Transplant
from unveil.config import SceneRow

MAKERS: dict[str, Maker] = {
    maker.protocol.id: maker for maker in (Paired(), Transplant(), Simulate(), NoTruth())
}


def maker_of(row: SceneRow) -> Maker:
    """Return what makes the target of a row, whose schema knows the names of all protocols."""
    return MAKERS[row.protocol]
