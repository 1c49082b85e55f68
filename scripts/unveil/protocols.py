"""Protocols: where the clouds of a target and its truth come from, and what each is worth.

Facts that tables, figures and docs share. How a target comes about is in
:mod:`unveil.assembly.protocols`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True)
class Protocol:
    """What is known of every scene of a protocol.

    Attributes:
        id: what column ``protocol`` of the scene table says.
        title: the name printed in figures and tables.
        explanation: how the target and its truth come about, in half a sentence.
        clouds: of the target: ``real`` ones of its own, ``lent`` by another date of the place, or
            ``generated``.
        truth: the image of ``another date``, the image of the target's own date that is
            ``withheld``, or ``none``.
        variant_of: the protocol that the scene table names, where this is another name for scenes
            that must not be mixed with its others; else empty.
    """

    id: str
    title: str
    explanation: str
    clouds: Literal["real", "lent", "generated"]
    truth: Literal["another date", "withheld", "none"]
    variant_of: str = ""

    @property
    def exact(self) -> bool:
        """Whether the truth shows the ground as it was on the date of the target."""
        return self.truth == "withheld"


PROTOCOLS: dict[str, Protocol] = {
    protocol.id: protocol
    for protocol in (
        Protocol(
            "paired",
            title="Paired dates",
            explanation="a cloudy image and a clear image of another date, so what changed on the "
            "ground between the dates counts as error",
            clouds="real",
            truth="another date",
        ),
        Protocol(
            "transplant",
            title="Transplanted clouds",
            explanation="a clear date is withheld as truth, and the sky of another date of the "
            "same place is put on it: cloud, shadow, and haze that its mask calls clear",
            clouds="lent",
            truth="withheld",
        ),
        Protocol(
            "simulate",
            title="Simulated clouds",
            explanation="a clear date is withheld as truth, and generated clouds are put on it",
            clouds="generated",
            truth="withheld",
        ),
        Protocol(
            "none",
            title="No truth",
            explanation="there is no clear image to compare with, so nothing is scored",
            clouds="real",
            truth="none",
        ),
    )
}
"""Every protocol, in order of trust; at the end, scenes of some that are to be told apart."""
TABLED = tuple(PROTOCOLS)
"""Those that the scene table names."""
CLEAN_RIM = "clean rim, which flatters methods that learn from the target"
"""What is said of targets without a veil wherever their numbers stand."""


def _without_veil(protocol: Protocol) -> Protocol:
    return replace(
        protocol,
        id=f"{protocol.id}_clean",
        title=f"{protocol.title}, clean rim",
        explanation=f"{protocol.explanation}, but without a veil: a {CLEAN_RIM}",
        variant_of=protocol.id,
    )


PROTOCOLS |= {
    clean.id: clean for clean in map(_without_veil, [p for p in PROTOCOLS.values() if p.exact])
}


def clean_variant(protocol: str) -> str:
    """Return the name of a protocol's scenes without a veil."""
    return next(p.id for p in PROTOCOLS.values() if p.variant_of == protocol)


def title_of(protocol: str) -> str:
    """Return the title of a protocol by its id; what is none is its own title."""
    return PROTOCOLS[protocol].title if protocol in PROTOCOLS else protocol
