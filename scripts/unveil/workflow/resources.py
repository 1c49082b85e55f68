"""What a job asks the scheduler for: memory and time, from its scenes and its models.

``benchmarks/resources.py`` measures, and the tests hold these requests against what it
measured.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from unveil.sources.base import Size

SNAKEMAKE_MB = 750
"""A job on a cluster has Snakemake beside it, two to three times, with 250 MB each."""
MEMORY_MARGIN = 1.5
"""Over what was measured: other libraries, other versions, larger tables."""
TIME_MARGIN = 4.0
"""Over what was measured: slower processors, file systems that many use."""
START_SECONDS = 120.0
"""Starting Snakemake, Python and TensorFlow from a slow file system."""
HELD_PIXELS = 2 * 1024**2
"""Windows and tiles keep memory from growing with larger scenes: one is read ahead of another."""


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
    "assemble_scene": Cost(150, 500, 10, 20, seconds_per_mpx=13, seconds_per_mpx_frame=0.7),
    "mask_scene": Cost(700, 80, 0, 11, seconds=10, seconds_per_mpx=30, seconds_per_mpx_frame=1.0),
    "coregister_scene": Cost(150, 60, 50, seconds_per_mpx_frame=0.5),
    "infer": Cost(150),  # of models that all lack their weights
    "score": Cost(150, 450, seconds_per_mpx=10),
    **dict.fromkeys(("cloudy", "least_cloudy", "mosaic", "nearest", "linear", "damped"), _METHOD),
    **dict.fromkeys(
        ("median", "medoid", "whittaker", "external"), Cost(150, 0, 140, seconds_per_mpx_frame=0.6)
    ),
    **dict.fromkeys(
        ("geomedian", "robust_line", "harmonic", "led_frames"),
        Cost(150, 0, 160, seconds_per_mpx_frame=0.8),
    ),
    "vpint2": Cost(150, 0, 120, seconds_per_mpx_frame=12),
    "clear_mean": _METHOD,
    "inpaint": Cost(150, 0, 120, seconds_per_mpx=4, seconds_per_mpx_frame=0.6),
    "mnspi": Cost(150, 0, 190, seconds_per_mpx=30, seconds_per_mpx_frame=0.6),
    "closed_form": Cost(170, 300, 200, seconds_per_mpx=4, seconds_per_mpx_frame=4),
    "regressed": Cost(170, 0, 150, seconds_per_mpx_frame=2),
    **dict.fromkeys(("dsen2cr", "uncrtaints", "utilise", "anytimeformer", "chronos"), _NETWORK),
}
"""By rule, and by kind of model for inference. Networks are on a CPU, whose memory and time are
larger than those beside a GPU; the published ones, whose weights are not shipped, are given what
the largest network measured costs."""
UNMEASURED = _NETWORK
"""A kind of model that nobody has measured is taken for the largest that was."""


def memory_mb(
    stage: str,
    sizes: Sequence[Size],
    *,
    kinds: Sequence[str | Cost] = (),
    attempt: int = 1,
    at_once: int = 1,
) -> int:
    """Return the memory that a job asks for, twice as much at each further attempt.

    Models follow one another, so the largest counts; of scenes, those that may meet.

    Args:
        stage: name of the rule, as in :data:`COSTS`.
        sizes: the scenes that the job serves.
        kinds: kinds of the models that it runs, or what they were measured to cost, for the stage
            ``infer``.
        attempt: 1 for the first.
        at_once: scenes in work at the same time.
    """
    # What meets is the largest, so of equal scenes no more count than may be in work at once.
    met = [size for size, number in Counter(sizes).items() for _ in range(min(number, at_once))]
    most = max(
        cost.mb + sum(sorted(cost.memory(size) - cost.mb for size in met)[-at_once:])
        for cost in _costs(stage, kinds)
    )
    return round(SNAKEMAKE_MB + MEMORY_MARGIN * most) * 2 ** (attempt - 1)


def minutes(
    stage: str, sizes: Sequence[Size], *, kinds: Sequence[str | Cost] = (), attempt: int = 1
) -> int:
    """Return the time that a job asks for, twice as much at each further attempt.

    Args:
        stage: as for :func:`memory_mb`, like the others.
        sizes: as there.
        kinds: as there.
        attempt: as there.
    """
    alike = Counter(sizes).items()  # thousands of patches of a data set are of one size
    costs = _costs(stage, kinds)
    scenes = sum(cost.time(size) * number for cost in costs for size, number in alike)
    seconds = START_SECONDS + TIME_MARGIN * scenes
    return max(10, -(-round(seconds) // 60)) * 2 ** (attempt - 1)


def _costs(stage: str, kinds: Sequence[str | Cost]) -> list[Cost]:
    costs = [k if isinstance(k, Cost) else COSTS.get(k, UNMEASURED) for k in kinds]
    return costs or [COSTS[stage]]
