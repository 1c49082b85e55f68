"""What a result was computed with: versions of packages, and the machine."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

PACKAGES = (
    "gdal",
    "h5py",
    "keras",
    "numba",
    "numpy",
    "onnxruntime",
    "openvino",
    "pandas",
    "rasterio",
    "s2cloudless",
    "scikit-image",
    "scipy",
    "seaborn",
    "snakemake",
    "tensorflow",
    "tensorflow-cpu",
    "ukis-csmask",
    "unveil",
)


def versions() -> dict[str, str]:
    """Return the versions of Python, GDAL and the installed packages that results depend on."""
    import rasterio

    found = {"python": platform.python_version(), "libgdal": rasterio.__gdal_version__}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, str]:
    """Return machine, processor, cores this process may use, and memory in GiB."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0),
        "memory": f"{memory:.1f} GiB",
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
