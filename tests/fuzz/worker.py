"""Read mutated files one after another, in a process of their own, and say how each ended.

``python -m tests.fuzz.worker SEED READER:FIRST:STOP ...`` writes one line of JSON an input.
Input number N of a reader and a seed is always the same file; number 0 is the good one. The
modules are imported once; each reader works in a fork, so that a fork that dies (crash in C,
out of memory, out of time) is seen and replaced.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

from tests.fuzz.mutate import mutate
from tests.fuzz.readers import READERS, Reader

from unveil.errors import InputError, SceneSkipped

SECONDS = 60
"""Longest time for one input, on a machine that may be busy."""
CPU_SECONDS = 20
"""Longest computing for one input."""
MEMORY = 3 * 2**30
"""Most bytes of address space that inputs may take beyond what the modules have."""


def limit_memory() -> None:
    """Let allocations fail that no small file can justify."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def write_input(reader: Reader, good: Path, folder: Path, *, seed: str, number: int) -> str:
    """Copy the good files of a reader, one of them mutated; return its name."""
    rng = random.Random(seed)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(good, folder)
    victim = folder / rng.choice(sorted(reader.mutated(good)))
    if number:
        victim.write_bytes(mutate(victim.read_bytes(), victim.name, rng))
    return victim.relative_to(folder).as_posix()


def read(reader: Reader, folder: Path) -> dict[str, object]:
    """Read one input and say how it ended."""
    begin, before = time.process_time(), most_memory()
    try:
        reader.read(folder)
        found: dict[str, object] = {"end": "read"}
    except SceneSkipped as fact:
        found = {"end": "skipped", "text": str(fact)[:300]}
    except InputError as error:
        clear = "Remedy: " in str(error) and "\n" not in str(error)
        found = {"end": "refused" if clear else "unclear", "text": str(error)[:300]}
    except BaseException as error:
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if "unveil" in frame.filename]
        place = own[-1] if own else frames[-1]
        found = {
            "end": "crash",
            "text": f"{type(error).__name__}: {error}"[:300],
            "place": f"{Path(place.filename).name}:{place.lineno} {place.name}",
        }
    return found | {
        "seconds": round(time.process_time() - begin, 2),
        "mib": max(most_memory() - before, 0) >> 20,
    }


def forget_sources() -> None:
    """Empty the caches of sources, which know files by their paths."""
    for name, module in list(sys.modules.items()):
        if name.startswith("unveil.sources"):
            for value in list(vars(module).values()):
                if hasattr(value, "cache_clear"):
                    value.cache_clear()


def most_memory() -> int:
    """Return the most bytes that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def read_range(name: str, numbers: range, scratch: Path, *, seed: str, pipe: int) -> None:
    """Read a range of inputs of one reader, telling each number before and its end after."""
    reader, say = READERS[name], os.fdopen(pipe, "w", buffering=1)
    quiet = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # libraries print
        os.dup2(quiet, stream)
    warnings.simplefilter("ignore")
    folder = scratch / "input"
    os.chdir(scratch)
    limit_memory()
    for number in numbers:
        say.write(f"{number}\n")
        file = write_input(
            reader, scratch / "good", folder, seed=f"{seed} {name} {number}", number=number
        )
        forget_sources()
        signal.setitimer(signal.ITIMER_REAL, SECONDS)  # both end the process, also inside C
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        found = read(reader, folder)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.setitimer(signal.ITIMER_PROF, 0)
        if list(scratch.rglob("pwned")):
            found["end"] = "ran a command"
        say.write(json.dumps(found | {"file": file}) + "\n")


def say(found: dict[str, object]) -> None:
    """Write one line at once, so that forks inherit no text that waits."""
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()


def run_reader(name: str, numbers: range, *, seed: str) -> None:
    """Read a range of inputs in forks and say how each ended."""
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        (scratch / "good").mkdir()
        if os.fork() == 0:  # writing the good files may start threads, which do not fork
            READERS[name].make(scratch / "good")
            os._exit(0)
        os.wait()
        while numbers:
            source, pipe = os.pipe()
            if os.fork() == 0:
                os.close(source)
                try:
                    read_range(name, numbers, scratch, seed=seed, pipe=pipe)
                finally:
                    os._exit(0)
            os.close(pipe)
            last = None
            for line in os.fdopen(source):
                if line.startswith("{"):
                    say({"reader": name, "number": last, **json.loads(line)})
                    numbers = range(last + 1, numbers.stop)
                else:
                    last = int(line)
            _, status = os.wait()
            if os.WIFSIGNALED(status) or numbers:
                end = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else "?"
                say({"reader": name, "number": last, "end": f"died of {end}"})
                numbers = range((last if last is not None else numbers.stop) + 1, numbers.stop)


def main(seed: str, *wanted: str) -> None:
    """Read what the command line asks for."""
    for text in wanted:
        name, first, stop = text.split(":")
        run_reader(name, range(int(first), int(stop)), seed=seed)


if __name__ == "__main__":
    main(*sys.argv[1:])
