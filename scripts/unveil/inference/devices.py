"""Which device a network runs on: one GPU per job, never shared by two local jobs.

Snakemake counts GPUs but never says which one a job may use, and TensorFlow takes every GPU
it sees. So a job claims one by a lock, and hides the others, before any library starts.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import logging
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from unveil.errors import InputError

LOG = logging.getLogger(__name__)
PRECISIONS = ("auto", "float32", "mixed_bfloat16", "mixed_float16", "int8")
BACKENDS = ("auto", "tensorflow", "openvino")
BFLOAT16_CPU_FLAGS = ("avx512_bf16", "amx_bf16")
BFLOAT16_GPU_CAPABILITY = (8, 0)
POLL_SECONDS = 0.5
CUDA = "TensorFlow with CUDA is installed by `make environment GPU=1` and in conda's environments."
NONE = "-1"
"""What CUDA takes for no GPU."""
_CLAIMS = contextlib.ExitStack()


@dataclass(frozen=True)
class Device:
    """What a job runs on.

    Attributes:
        name: for people, as in the record of a run.
        kind: ``CPU`` or ``GPU``.
        fast_bfloat16: whether its arithmetic in bfloat16 is faster than in float32.
    """

    name: str
    kind: Literal["CPU", "GPU"]
    fast_bfloat16: bool = False


CPU = Device("CPU", "CPU")


def visible_gpus() -> list[str]:
    """Return ids of the GPUs this process may use, without starting TensorFlow.

    ``CUDA_VISIBLE_DEVICES`` if it is set (Slurm does), else NVIDIA's device files.
    """
    setting = os.environ.get("CUDA_VISIBLE_DEVICES")
    if setting is not None:
        return [name.strip() for name in setting.split(",") if name.strip() not in ("", "-1")]
    numbers = [p.name[6:] for p in Path("/dev").glob("nvidia[0-9]*")]
    return sorted((n for n in numbers if n.isdigit()), key=int)


def lock_folder() -> Path:
    """Return the folder of the GPU locks, one for all runs of this user on this machine."""
    return Path(tempfile.gettempdir()) / f"unveil-gpu-locks-{os.getuid()}"


@contextlib.contextmanager
def claim_gpu(candidates: Sequence[str], folder: Path) -> Iterator[str]:
    """Hold one of several GPUs; wait while all are held by other jobs.

    The lock is the kernel's (flock), so it ends with the process, however that ends.

    Args:
        candidates: ids, at least one.
        folder: where the lock files are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    waiting = False
    while True:
        for name in candidates:
            stream = open(folder / f"{name.replace('/', '_')}.lock", "w")
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                stream.close()
                continue
            with stream:
                yield name
            return
        if not waiting:
            LOG.info("every GPU is used by another job; waiting for one of %s", list(candidates))
            waiting = True
        time.sleep(POLL_SECONDS)


@cache
def claim_device(gpu: str, backend: str = "tensorflow") -> Device:
    """Claim what networks run on, hide everything else from their library, and start TensorFlow.

    The claim lasts as long as the process: TensorFlow never leaves a GPU that it has started.
    Another library is left to its model, which finds the GPU as the only one.

    Args:
        gpu: ``required``, ``preferred`` or ``never``.
        backend: the library that computes; any but ``tensorflow`` is a user's own model's.

    Raises:
        InputError: if a GPU is required and none is visible, with the remedy.
    """
    chosen = _claim(gpu)
    if backend != "tensorflow":
        return Device(f"GPU {chosen} ({_name_of(chosen)})", "GPU") if chosen != NONE else _cpu()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    device = _start_gpu() if chosen != NONE else None
    if device is None and gpu == "required":
        raise _no_gpu("TensorFlow sees none")
    if device is None and chosen != NONE:
        LOG.warning("TensorFlow sees none of the GPUs (%s): computing on the CPU. %s", chosen, CUDA)
    return device or _cpu()


@cache
def _claim(gpu: str) -> str:
    """Claim one GPU for as long as the process lives, for whichever libraries, and hide others."""
    candidates = visible_gpus() if gpu != "never" else []
    if gpu == "required" and not candidates:
        raise _no_gpu("none is visible")
    chosen = _CLAIMS.enter_context(claim_gpu(candidates, lock_folder())) if candidates else NONE
    os.environ["CUDA_VISIBLE_DEVICES"] = chosen
    return chosen


def _name_of(gpu: str) -> str:
    """Return what the driver calls a GPU."""
    words = ["nvidia-smi", f"--id={gpu}", "--query-gpu=name", "--format=csv,noheader"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip() or "unknown"


def _cpu() -> Device:
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    return Device("CPU", "CPU", any(flag in flags for flag in BFLOAT16_CPU_FLAGS))


def _start_gpu() -> Device | None:
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return None
    tf.config.experimental.set_memory_growth(gpus[0], True)
    details = tf.config.experimental.get_device_details(gpus[0])
    capability = details.get("compute_capability", (0, 0))
    name = f"GPU {os.environ['CUDA_VISIBLE_DEVICES']} ({details.get('device_name', 'unknown')})"
    return Device(name, "GPU", capability >= BFLOAT16_GPU_CAPABILITY)


def _no_gpu(found: str) -> InputError:
    return InputError(
        f"a GPU is required and {found}",
        file="config",
        field="inference.gpu",
        remedy=f"set it to preferred, or check the driver and CUDA_VISIBLE_DEVICES. {CUDA}",
    )


def choose_precision(wanted: str, supported: Sequence[str], device: Device) -> str:
    """Return the precision that a model computes in.

    Args:
        wanted: one of :data:`PRECISIONS`.
        supported: what the model can do; a model without a choice has ``("float32",)``.
        device: what it runs on.
    """
    if wanted == "int8" and wanted not in supported:
        wanted = "auto"  # the next fastest
    if wanted == "auto":
        wanted = "mixed_bfloat16" if device.fast_bfloat16 else "float32"
    return wanted if wanted in supported else "float32"


def choose_backend(
    wanted: str, *, precision: str, supported: Sequence[str], device: Device
) -> tuple[str, str]:
    """Return ``openvino`` where it is wanted and can be had, else ``tensorflow`` and why.

    Args:
        wanted: one of :data:`BACKENDS`; ``auto`` takes OpenVINO wherever it can.
        precision: one of :data:`PRECISIONS`.
        supported: precisions in which the model can be computed with OpenVINO.
        device: what the job runs on.

    Raises:
        InputError: if OpenVINO is asked for by name and is not installed.
    """
    if wanted == "tensorflow":
        return "tensorflow", ""
    if not supported:
        return "tensorflow", "the model has no OpenVINO version"
    if device.kind == "GPU":
        return "tensorflow", "OpenVINO serves the CPU, and the job has a GPU"
    if precision not in ("auto", *supported):
        return "tensorflow", f"OpenVINO does not compute in {precision}"
    if precision == "mixed_bfloat16" and not device.fast_bfloat16:
        return "tensorflow", "the processor has no bfloat16 instructions"
    if importlib.util.find_spec("openvino") is not None:
        return "openvino", ""
    if wanted == "auto":
        return "tensorflow", "OpenVINO is not installed"
    raise InputError(
        "openvino is asked for and not installed",
        file="config",
        field="inference.backend",
        remedy="install it (`uv sync --extra openvino`, or `pip install openvino`), or set auto",
    )
