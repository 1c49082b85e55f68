"""Which model makes the images of a place: what the place's own scores say, else other places'."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from unveil.cloudfree.quality import Score, mean_by_model
from unveil.errors import InputError
from unveil.guarded import reading_input
from unveil.protocols import PROTOCOLS

RECOMMENDED = "recommended"
"""What the config says where no model is named."""
RANKING_COLUMNS = ("model", "place", "pairs", "mae")
FEWEST_OWN = 3
"""Scenes of one protocol from which a place judges models itself."""
WANTED = ("occluded", "all", "MAE")
"""Region, band and metric of the scores that count."""


@dataclass(frozen=True)
class Choice:
    """Models in the order in which they are asked, and what that order rests on.

    Attributes:
        models: ids; the first that can answer for a date makes its image.
        basis: in words.
        errors: mean error of every model that was compared, reflectance.
        own: scores of the place itself.
        others: scores of other places.
    """

    models: tuple[str, ...]
    basis: str
    errors: Mapping[str, float]
    own: tuple[Score, ...]
    others: tuple[Score, ...]

    @property
    def facts(self) -> dict[str, Any]:
        """The same as plain values."""
        return asdict(self)

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Choice:
        """Return what :attr:`facts` gave."""
        scores = {key: tuple(Score(**row) for row in facts[key]) for key in ("own", "others")}
        return cls(tuple(facts["models"]), facts["basis"], facts["errors"], **scores)


def choose(
    wish: str, candidates: Sequence[str], own: Sequence[Score], others: Sequence[Score]
) -> Choice:
    """Return the models that make the images of a place, in order.

    A model that is named is the only one. Otherwise real pairs of the place judge, then veiled
    transplants, then real pairs of other places; who has no score there comes last.

    Args:
        wish: id of a model, or :data:`RECOMMENDED`.
        candidates: ids of the models that may make images, in order of preference.
        own: scores of the place.
        others: scores of other places.
    """
    scores = {"own": tuple(own), "others": tuple(others)}
    if wish != RECOMMENDED:
        return Choice((wish,), "named by the config", {}, **scores)
    for protocol in PROTOCOLS:
        judged = [score for score in own if score.protocol == protocol]
        scenes = {(score.where, score.date) for score in judged}
        errors = mean_by_model([s for s in judged if s.model in candidates])
        if len(scenes) >= FEWEST_OWN and errors:
            kind = {"paired": "real pairs", "transplant": "veiled transplants"}.get(protocol)
            basis = f"{len(scenes)} {kind or protocol} of the place itself"
            return Choice(_ordered(errors, candidates), basis, errors, **scores)
    errors = mean_by_model([score for score in others if score.model in candidates])
    places = len({score.where for score in others})
    basis = f"real pairs of {places} other places, as the place has too few scores of its own"
    return Choice(_ordered(errors, candidates), basis, errors, **scores)


def _ordered(errors: Mapping[str, float], candidates: Sequence[str]) -> tuple[str, ...]:
    return (*errors, *(model for model in candidates if model not in errors))


def read_ranking(path: str | Path) -> list[Score]:
    """Read the errors of models at places that anyone can have.

    Raises:
        InputError: if the table is damaged.
    """
    with reading_input(path, "a ranking", remedy="restore the file"):
        lines = Path(path).read_text(encoding="utf-8").splitlines()
        rows = list(csv.DictReader((x for x in lines if x[:1] != "#"), delimiter="\t"))
        if rows and tuple(rows[0]) != RANKING_COLUMNS:
            raise InputError(
                f"columns {', '.join(rows[0])}",
                file=path,
                remedy=f"write {', '.join(RANKING_COLUMNS)}",
            )
        return [
            Score(row["model"], row["place"], "paired", "", None, float(row["mae"])) for row in rows
        ]


def read_scores(tables: Iterable[str | Path], dates: Mapping[str, str]) -> list[Score]:
    """Read the scores of the place's own scenes from tables of the metrics stage.

    Args:
        tables: files with a line per scene, model, region, band and metric.
        dates: scene -> date of its target.

    Raises:
        InputError: if a table is damaged.
    """
    found = []
    for path in tables:
        with reading_input(path, "a table of metrics", remedy="run again with --forcerun score"):
            for row in csv.DictReader(Path(path).read_text(encoding="utf-8").splitlines()):
                wanted = (row["region"], row["band"], row["metric"]) == WANTED
                if wanted and row["scene"] in dates:
                    found.append(
                        Score(
                            row["model"],
                            row["scene"],
                            row["protocol"],
                            dates[row["scene"]],
                            float(row["cloud_cover"]),
                            float(row["value"]),
                        )
                    )
    return found
