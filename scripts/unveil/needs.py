"""What a job asks the scheduler for: memory and time, from its scenes and its models.

``benchmarks/resources.py`` measures, and the tests hold these requests against what it
measured. The size of a scene is read from names and the first bytes of one file, as a plan of
ten thousand scenes must not open them all.
"""

from __future__ import annotations

import os
import struct
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from unveil.config import SceneRow
from unveil.errors import InputError
from unveil.sources.area import area_box, box_pixels

SNAKEMAKE_MB = 750
"""A job on a cluster has Snakemake beside it, two to three times, with 250 MB each."""
MEMORY_MARGIN = 1.5
"""Over what was measured: other libraries, other versions, larger tables."""
TIME_MARGIN = 4.0
"""Over what was measured: slower processors, file systems that many use."""
START_SECONDS = 120.0
"""Starting Snakemake, Python and TensorFlow from a slow file system."""
PATCH_PIXELS = 256 * 256
"""Of the benchmark datasets."""
TILE_PIXELS = 10_980**2
"""Of Sentinel-2, for products without a smaller place in them."""
HELD_PIXELS = 2 * 1024**2
"""Windows and tiles keep memory from growing with larger scenes: one is read ahead of another."""


@dataclass(frozen=True)
class Size:
    """How large a scene is.

    Attributes:
        pixels: of its grid.
        frames: Sentinel-2 frames, the target among them.
    """

    pixels: int
    frames: int


@dataclass(frozen=True)
class Cost:
    """What a stage or a kind of model costs on one scene.

    Attributes:
        mb: memory without any pixel, in 10^6 bytes.
        mb_per_mpx: memory for each 10^6 pixels held at once.
        mb_per_mpx_frame: memory for each 10^6 pixels of each frame held at once.
        mb_per_whole_mpx: memory for each 10^6 pixels of the scene, of what is held for all of it.
        seconds: of one core, for a scene however small.
        seconds_per_mpx: of one core, for each 10^6 pixels.
        seconds_per_mpx_frame: of one core, for each 10^6 pixels of each frame.
    """

    mb: float
    mb_per_mpx: float = 0.0
    mb_per_mpx_frame: float = 0.0
    mb_per_whole_mpx: float = 0.0
    seconds: float = 1.0
    seconds_per_mpx: float = 0.0
    seconds_per_mpx_frame: float = 0.0

    def memory(self, size: Size) -> float:
        """Return the memory that one scene takes, in 10^6 bytes."""
        held, whole = min(size.pixels, HELD_PIXELS) / 1e6, size.pixels / 1e6
        window = held * (self.mb_per_mpx + self.mb_per_mpx_frame * size.frames)
        return self.mb + window + whole * self.mb_per_whole_mpx

    def time(self, size: Size) -> float:
        """Return the seconds that one scene takes."""
        mpx = size.pixels / 1e6
        return self.seconds + mpx * (
            self.seconds_per_mpx + self.seconds_per_mpx_frame * size.frames
        )


_METHOD = Cost(150, 0, 120, seconds_per_mpx_frame=0.6)
_NETWORK = Cost(1100, 500, 150, seconds=15, seconds_per_mpx=60, seconds_per_mpx_frame=12)
COSTS = {
    "assemble_scene": Cost(150, 500, 10, 20, seconds_per_mpx=1, seconds_per_mpx_frame=0.7),
    "mask_scene": Cost(250, 80, 0, 10, seconds=5, seconds_per_mpx=35, seconds_per_mpx_frame=0.3),
    "coregister_scene": Cost(150, 60, 50, seconds_per_mpx_frame=0.5),
    "infer": Cost(150),  # of models that all lack their weights
    "score": Cost(150, 450, seconds_per_mpx=10),
    **dict.fromkeys(("cloudy", "least_cloudy", "mosaic", "nearest", "linear", "damped"), _METHOD),
    **dict.fromkeys(
        ("median", "medoid", "whittaker", "external"), Cost(150, 0, 140, seconds_per_mpx_frame=0.6)
    ),
    "geomedian": Cost(150, 0, 160, seconds_per_mpx_frame=2),
    "vpint2": Cost(150, 0, 120, seconds_per_mpx_frame=12),
    "regressed": Cost(170, 0, 150, seconds_per_mpx_frame=2),
    **dict.fromkeys(("dsen2cr", "uncrtaints", "utilise", "anytimeformer", "chronos"), _NETWORK),
}
"""By rule, and by kind of model for inference. Networks are on a CPU, whose memory and time are
larger than those beside a GPU; the published ones, whose weights are not shipped, are given what
the largest network measured costs."""


def memory_mb(
    stage: str,
    sizes: Sequence[Size],
    *,
    kinds: Sequence[str] = (),
    attempt: int = 1,
    at_once: int = 1,
) -> int:
    """Return the memory that a job asks for, twice as much at each further attempt.

    Models follow one another, so the largest counts; of scenes, those that may meet.

    Args:
        stage: name of the rule, as in :data:`COSTS`.
        sizes: the scenes that the job serves.
        kinds: kinds of the models that it runs, for the stage ``infer``.
        attempt: 1 for the first.
        at_once: scenes in work at the same time.
    """
    costs = [COSTS[kind] for kind in kinds] if kinds else [COSTS[stage]]
    most = max(
        cost.mb + sum(sorted(cost.memory(size) - cost.mb for size in sizes)[-at_once:])
        for cost in costs
    )
    return round(SNAKEMAKE_MB + MEMORY_MARGIN * most) * 2 ** (attempt - 1)


def minutes(
    stage: str, sizes: Sequence[Size], *, kinds: Sequence[str] = (), attempt: int = 1
) -> int:
    """Return the time that a job asks for, twice as much at each further attempt.

    Args:
        stage: as for :func:`memory_mb`, like the others.
        sizes: as there.
        kinds: as there.
        attempt: as there.
    """
    costs = [COSTS[kind] for kind in kinds] if kinds else [COSTS[stage]]
    seconds = START_SECONDS + TIME_MARGIN * sum(cost.time(size) for cost in costs for size in sizes)
    return max(10, -(-round(seconds) // 60)) * 2 ** (attempt - 1)


# --- sizes, without opening files ----------------------------------------------------------


def size_of(row: SceneRow) -> Size:
    """Return how large a scene will be; nothing where its files are missing or damaged."""
    try:
        if row.source == "sen12mscr":
            return Size(PATCH_PIXELS, 2)
        if row.source in ("sen12mscrts", "allclear"):
            return Size(PATCH_PIXELS, row.n_context + 1)
        if row.source == "safe":
            return Size(
                box_pixels(area_box(row.area), 10) if row.area else TILE_PIXELS, row.n_context + 1
            )
        if row.source == "npz":
            return Size(_npz_pixels(f"{row.path}/cloudy/{row.name or row.scene}.npz"), 2)
        first, count = _frames(f"{row.path}/frames")
        return Size(tiff_pixels(first), min(count, row.n_context + 1))
    except (InputError, OSError, ValueError, KeyError, struct.error):
        return Size(0, 1)


@cache
def _frames(folder: str) -> tuple[str, int]:
    files = (name for name in os.listdir(folder) if not name.startswith("."))
    names = [name for name in files if name.endswith((".tif", ".tiff"))]
    return f"{folder}/{min(names)}", len(names)


@cache
def tiff_pixels(path: str) -> int:
    """Return width x height from the header of a TIFF, fifty times as fast as GDAL opens it.

    Raises:
        ValueError: if it is not a TIFF, or does not say.
        OSError: if it cannot be read.
    """
    with open(path, "rb") as stream:
        head = stream.read(16)
        if head[:2] not in (b"II", b"MM"):
            raise ValueError(f"{path} is not a TIFF")
        order = "<" if head[:2] == b"II" else ">"
        big = struct.unpack(f"{order}H", head[2:4])[0] == 43
        start, number, entry = ("Q", "Q", "HHQ8s") if big else ("I", "H", "HHI4s")
        at = 8 if big else 4
        stream.seek(*struct.unpack(order + start, head[at : at + struct.calcsize(start)]))
        count = struct.unpack(order + number, stream.read(struct.calcsize(number)))[0]
        length = struct.calcsize(order + entry)
        table = stream.read(length * min(count, 64))
    # Tag 256 is the width, 257 the height; type 3 takes two bytes of the field, 4 takes four.
    sides = {
        tag: int.from_bytes(value[: {3: 2, 4: 4}.get(kind, 8)], {"<": "little", ">": "big"}[order])
        for tag, kind, _, value in struct.iter_unpack(
            order + entry, table[: len(table) // length * length]
        )
        if tag in (256, 257)
    }
    return sides[256] * sides[257]


def _npz_pixels(path: str) -> int:
    with zipfile.ZipFile(path) as archive, archive.open("arr_0.npy") as stream:
        form = np.lib.format
        old = form.read_magic(stream) == (1, 0)
        read = form.read_array_header_1_0 if old else form.read_array_header_2_0
        shape = read(stream)[0]
    return int(np.prod(shape[-2:]))
