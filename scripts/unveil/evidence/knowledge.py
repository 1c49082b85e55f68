"""Which places a method knew before it was judged there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from unveil.guarded import read_json
from unveil.places.table import Place

CHOSEN_ON: Mapping[str, tuple[str, ...]] = dict.fromkeys(
    ("robust_line", "harmonic", "led_frames"), ("worldcereal-1", "hungary")
)
"""Kind of method without weights -> places on which its constants were chosen."""
UNKNOWN = "not listed"
"""Said of published weights, whose card names no places."""


def known_places(row: Mapping[str, Any], places: Iterable[Place]) -> tuple[str, ...]:
    """Return the places that a method was trained or validated on, or its constants chosen on.

    Args:
        row: of the models table; the weights may lie anywhere, their card beside them.
        places: the public places, which cards may name by their id in config/training.yaml.

    Returns:
        Ids of places; :data:`UNKNOWN` alone for weights without a card that names places.

    Raises:
        InputError: if the card is damaged.
    """
    if "weights" not in row:
        return CHOSEN_ON.get(row["kind"], ())
    card = Path(row["weights"]).with_suffix(".json")
    if not card.is_file():
        return (UNKNOWN,)
    facts = read_json(card, kind="the card of weights", remedy="put the card there again")
    named = {place["id"] for place in facts.get("places", [])}
    if not named:
        return (UNKNOWN,)
    return tuple(place.id for place in places if {place.id, place.series} & named)
