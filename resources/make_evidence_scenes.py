"""Choose the scenes of ``config/evidence.yaml`` by the masks of the places, as the workflow would.

Of every public place: real pairs, spread evenly over their covers, and a clear date under the sky
of the date whose cover is nearest to each level, with its veil and without. Which places there are
stands in ``resources/places.yaml``; nothing is random.

    snakemake --configfile config/evidence.yaml --cores 2 places
    python resources/make_evidence_scenes.py [--places FOLDER] [--check]

``--check`` compares the table with the one that is there, and the numbers of pairs with the table
of places.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Iterator
from pathlib import Path

from unveil.assembly.planning import Candidates, choose_candidates, survey
from unveil.config import fill_defaults, load_schema
from unveil.guarded import read_yaml
from unveil.places.table import Place, read_places
from unveil.sources.pairs import Wish, choose_pairs, find_pairs
from unveil.sources.selection import Limits

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "config" / "evidence.yaml"
COLUMNS = (
    *("scene", "source", "path", "target_date", "protocol", "place"),
    *("reference_date", "cloud_date", "cloud_level", "veil"),
)
PAIRS, MORE_PAIRS = 6, 12
"""Most real pairs of a place: of one that trains, and of one that does not."""
QUARTERS = (1,)
"""Which of a place's clear dates are withheld: those at these quarters of their order in time."""
LEVELS = (0.2, 0.5, 0.8, 0.95, 1.0)
NEAR = 0.1
"""Most that the cover of a donor may differ from the level."""
Row = dict[str, str]


def limits() -> Limits:
    """Return how cloudy a target may be, as the configuration says."""
    settings = fill_defaults(read_yaml(CONFIG), load_schema("config"))
    return Limits(**settings["sources"]["selection"])


def find_candidates(place: Place, folder: Path) -> Candidates:
    """Return the dates of a place that may be used, by its masks."""
    return choose_candidates(survey(folder / place.id, folder))


def rows_of(place: Place, found: Candidates) -> Iterator[Row]:
    """Yield the scenes of a place: its real pairs, then its transplants."""
    common = {"source": "place", "path": place.id, "place": place.id}
    most = PAIRS if place.role == "trains" else MORE_PAIRS
    for target, truth in sorted(
        choose_pairs(found.looks, Wish(most), limits()), key=lambda pair: pair[0].date
    ):
        yield common | {
            "scene": f"{place.id}-{target.date.replace('-', '')}-pair",
            "target_date": target.date,
            "protocol": "paired",
            "reference_date": truth.date,
        }
    covers = {f["date"]: f["cover"] for f in found.lenders}
    clear = sorted(f["date"] for f in found.clear)
    for date in (clear[quarter * len(clear) // 4] for quarter in QUARTERS):
        for level in LEVELS:
            donor = min((d for d in covers if d != date), key=lambda d: (abs(covers[d] - level), d))
            if abs(covers[donor] - level) > NEAR:
                continue
            for veil in ("veiled", "clean"):
                yield common | {
                    "scene": f"{place.id}-{date.replace('-', '')}-{veil}-{round(100 * level):03d}",
                    "target_date": date,
                    "protocol": "transplant",
                    "cloud_date": donor,
                    "cloud_level": f"{level:g}",
                    "veil": "true" if veil == "veiled" else "false",
                }


def main() -> None:
    """Write the table, or compare it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--places", type=Path, default=Path(".cache/unveil/places"))
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, delimiter="\t", lineterminator="\n", restval="")
    writer.writeheader()
    faults = []
    # Single pairs are for methods of one image: config/single_image_scenes.tsv.
    for place in (p for p in read_places().values() if p.size and p.dates > 2):
        found = find_candidates(place, given.places)
        writer.writerows(rows_of(place, found))
        pairs = len(find_pairs(found.looks, Wish(), limits()))
        if pairs != place.pairs:
            faults.append(f"{place.id}: {pairs} real pairs, the table of places says {place.pairs}")
    table = ROOT / "config" / "evidence_scenes.tsv"
    if not given.check:
        table.write_text(text.getvalue())
    elif table.read_text() != text.getvalue():
        faults.append(f"{table} is another")
    if faults:
        sys.exit("\n".join(faults))


if __name__ == "__main__":
    main()
