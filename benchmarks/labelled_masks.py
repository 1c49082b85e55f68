"""How detectors agree with clouds that somebody has drawn.

Run: ``python benchmarks/labelled_masks.py FOLDER``, laid out as CloudSEN12 (Aybar et al. 2022,
doi:10.1038/s41597-022-01878-2): ``ROI/IMAGE/S2L1C.tif`` and ``S2L2A.tif``, with
``ROI/IMAGE/labels/manual_hq.tif``. Detectors run as in the masks stage, and nothing is grown.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import rasterio

from unveil import raster
from unveil.bands import CLOUD, L1C13, L2A12, NODATA, SHADOW
from unveil.masks.mask_scene import mask_scene
from unveil.masks.options import MaskOptions
from unveil.scene import Frame, Scene, require_mask

LABELS = {"cloud": (1, 2), "shadow": (3,)}
"""Codes of CloudSEN12: 0 clear, 1 thick and 2 thin cloud, 3 shadow."""
LABELLED_BANDS = {"L1C": L1C13, "L2A": L2A12}
DETECTORS = {
    "L1C": (("s2cloudless",), ("ukis",), ("thresholds",), ("s2cloudless", "ukis")),
    "L2A": (("ukis",),),
}
DAY = "2020-01-01"
"""Nothing here depends on the date."""


@dataclass(frozen=True)
class Labelled:
    """An image whose clouds somebody has drawn.

    Attributes:
        image: raster of all bands of its level, DN, 0 where nodata.
        labels: raster of :data:`LABELS`.
        level: ``L1C`` or ``L2A``.
    """

    image: Path
    labels: Path
    level: str


def find_labelled(folder: Path) -> list[Labelled]:
    """Return the images of a folder laid out as CloudSEN12 (doi:10.1038/s41597-022-01878-2).

    ``ROI/DATE/S2L1C.tif`` and ``S2L2A.tif``, ``ROI/DATE/labels/manual_hq.tif``.
    """
    return [
        Labelled(image, labels, level)
        for level in LABELLED_BANDS
        for image in sorted(folder.rglob(f"S2{level}.tif"))
        if (labels := image.parent / "labels" / "manual_hq.tif").is_file()
    ]


def judge_labelled(item: Labelled, detectors: tuple[str, ...]) -> np.ndarray:
    """Return the classes that the masks stage gives an image, not grown, ``(H, W)`` uint8."""
    bands, facts = LABELLED_BANDS[item.level], {"level": item.level}
    with TemporaryDirectory() as folder:
        with rasterio.open(item.image) as dataset:
            data = dataset.read(range(1, len(bands) + 1)).astype(np.uint16)
            grid = raster.grid_of(dataset)
        path = Path(folder) / "image.tif"
        raster.write_cog(path, data, grid, descriptions=bands, nodata=0)
        scene = Scene("s", "none", "p", grid, (Frame(DAY, "target", path, bands),), facts)
        options = MaskOptions(detectors=detectors, target_growth_m=0)
        return raster.read(require_mask(mask_scene(scene, Path(folder), options).target))[0]


def labelled_table(
    items: Sequence[Labelled], detectors: Mapping[str, Iterable[tuple[str, ...]]]
) -> str:
    """Return how detectors agree with labels, as Markdown.

    Of cloud (thick or thin) and of shadow: the share of it that is found, and the share of what is
    called so that is. Pixels without data do not count.

    Args:
        items: the images.
        detectors: level -> what is asked together.
    """
    lines = [
        "| level | detector | images | cloud found | cloud true | shadow found | shadow true |",
        "|---|---|---|---|---|---|---|",
    ]
    for level in LABELLED_BANDS:
        here = [item for item in items if item.level == level]
        for asked in detectors[level] if here else ():
            tally = np.zeros((2, 3))
            for item in here:
                tally += count_agreement(judge_labelled(item, asked), raster.read(item.labels)[0])
            cells = (
                f"{both / whole:.3f}" if whole else ""
                for both, called, labelled in tally
                for whole in (labelled, called)
            )
            name = ", ".join(asked)
            lines.append(f"| {level} | {name} | {len(here)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def count_agreement(classes: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return pixels that both call so, that a detector does, that labels do: cloud, shadow."""
    known = classes != NODATA
    pairs = (
        (classes == CLOUD, np.isin(labels, LABELS["cloud"])),
        (classes == SHADOW, np.isin(labels, LABELS["shadow"])),
    )
    return np.array(
        [
            [np.count_nonzero(part & known) for part in (found & drawn, found, drawn)]
            for found, drawn in pairs
        ],
        float,
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="How detectors agree with drawn clouds.")
    parser.add_argument("folder", type=Path, help="laid out as CloudSEN12")
    print(labelled_table(find_labelled(parser.parse_args().folder), DETECTORS))


if __name__ == "__main__":
    main()
