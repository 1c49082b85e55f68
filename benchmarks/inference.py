"""Speed and memory of inference: DSen2-CR against a plain PyTorch one, and large scenes.

Run: ``python benchmarks/inference.py speed`` (or ``memory``, ``shards``, ``halo``). The peer needs
PyTorch, which Unveil does not: ``pip install torch==2.13.0`` into an environment of your
own; without it the rows of Unveil are printed alone. OpenVINO is an extra of Unveil. All
engines run in one process with the same weights and take turns, and the median of the turns
counts, so that a busy machine disturbs all alike; processor seconds are disturbed least.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import rasterio

from unveil.bands import CLOUD, CORE6, L1C13
from unveil.guarded import read_yaml
from unveil.inference.devices import CPU
from unveil.inference.engine import InferenceOptions, largest_tile, run_shard
from unveil.inference.tiles import even_tile, tiles_of
from unveil.metrics.definitions import psnr
from unveil.models.base import Model, ModelSpec
from unveil.models.dsen2cr import int8, openvino
from unveil.models.dsen2cr.model import Dsen2Cr
from unveil.models.dsen2cr.network import build_network, compile_network, load_weights
from unveil.models.dsen2cr.recipe import UNITS_PER_REFLECTANCE, fill_values, network_input
from unveil.models.dsen2cr.weights import Layer, layers_of
from unveil.models.registry import create
from unveil.raster import BLOCK, Grid
from unveil.scene import Frame, Scene, load_scene, read_inputs, read_reflectance
from unveil.weights.arrays import NamedArrays, write_arrays
from unveil.weights.read import read_weights

PEER = "torch channels_last"
TRANSFORM = (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0)
RECEPTIVE_FIELD = Dsen2Cr(ModelSpec("published", "dsen2cr")).receptive_field
CONTEXT = 6
"""Frames beside the target in the memory benchmark."""
ENGINES = (
    "tensorflow float32",
    "tensorflow mixed_bfloat16",
    "openvino float32",
    "openvino mixed_bfloat16",
    "openvino int8",
)


def make_weights(*, channels: int, bands: int, features: int, blocks: int) -> dict:
    """Draw weights that keep the size of the activations, kernels HWIO."""
    rng = np.random.default_rng(1)
    widths = [channels, *[features] * (2 * blocks + 1), bands]
    weights = {}
    for n, (before, after) in enumerate(zip(widths, widths[1:], strict=False), 1):
        kernel = rng.standard_normal((3, 3, before, after), np.float32) / np.sqrt(9 * before)
        weights[f"kernel_{n:02d}"] = kernel.astype(np.float32)
        weights[f"bias_{n:02d}"] = np.full(after, 0.01, np.float32)
    return weights


def ours(weights: dict, engine: str, *, features: int, blocks: int) -> Callable:
    """Return Unveil's network, channels last, on one of :data:`ENGINES`."""
    backend, precision = engine.split()
    if backend == "openvino":
        return _openvino(weights, precision)
    network = build_network(
        bands=13, radar=True, features=features, blocks=blocks, precision=precision
    )
    load_weights(network, NamedArrays(weights, Path("drawn"), ""))
    return compile_network(network)


def _openvino(weights: dict, precision: str) -> Callable:
    arrays = list(weights.values())
    layers = [Layer(*one) for one in zip(arrays[::2], arrays[1::2], strict=True)]
    if precision != "int8":
        return openvino.compile_network(layers, precision=precision)
    patches = [make_batch(64, seed) for seed in range(3, 7)]
    run, loss = int8.compile_int8(layers, calibration=patches[:2], held_out=patches[2:])
    print(f"int8 may cost {loss:.3f} dB of PSNR with these drawn weights on drawn images")
    return run


def make_batch(size: int, seed: int) -> np.ndarray:
    """Draw one image in network units."""
    return np.random.default_rng(seed).uniform(0, 5, (1, size, size, 15)).astype(np.float32)


def peer(weights: dict, *, blocks: int) -> Callable:
    """Return the straightforward PyTorch network, channels last."""
    import torch
    from torch import nn

    def convolution(number: int) -> nn.Conv2d:
        kernel = torch.from_numpy(weights[f"kernel_{number:02d}"].transpose(3, 2, 0, 1).copy())
        layer = nn.Conv2d(kernel.shape[1], kernel.shape[0], 3, padding=1)
        layer.weight.data, layer.bias.data = kernel, torch.from_numpy(weights[f"bias_{number:02d}"])
        return layer

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(convolution(n) for n in range(1, 2 * blocks + 3))

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            first, *inner, last = self.layers
            x = torch.relu(first(image))
            for one, two in zip(inner[::2], inner[1::2], strict=True):
                x = x + 0.1 * two(torch.relu(one(x)))
            return image[:, :13] + last(x)

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    network = Network().eval().to(memory_format=torch.channels_last)

    def run(batch: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            # Transposed without a copy, a channels-last array is a channels_last tensor.
            return (
                network(torch.from_numpy(batch).permute(0, 3, 1, 2)).numpy().transpose(0, 2, 3, 1)
            )

    return run


def print_speed(args: argparse.Namespace) -> None:
    """Print median seconds of each engine and size, and how often faster than the peer."""
    shape = {"features": args.features, "blocks": args.blocks}
    weights = make_weights(channels=15, bands=13, **shape)
    engines = {name: ours(weights, name, **shape) for name in args.engines}
    try:
        engines = {PEER: peer(weights, blocks=args.blocks), **engines}
    except ImportError:
        print("no peer: pip install torch==2.13.0 (in an environment of its own) to compare")
    print(f"DSen2-CR, {args.features} features, {args.blocks} blocks, 13+2 channels, batch 1")
    print(f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}")
    print("size  engine                     median s    min s  ratio  cpu s  ratio  difference")
    for size in args.sizes:
        batch = make_batch(size, 2)
        outputs = {name: run(batch) for name, run in engines.items()}
        seconds = take_turns(engines, batch, args.turns)
        first = next(iter(engines))
        wall_1, cpu_1 = (statistics.median(times) for times in zip(*seconds[first], strict=True))
        for name, turns in seconds.items():
            wall, cpu = zip(*turns, strict=True)
            gap = np.abs(outputs[name] - outputs[first]).max()
            print(
                f"{size:4}  {name:25}  {statistics.median(wall):8.2f} {min(wall):8.2f}  "
                f"{wall_1 / statistics.median(wall):5.2f}  {statistics.median(cpu):5.1f}  "
                f"{cpu_1 / statistics.median(cpu):5.2f}  {gap:10.1e}",
                flush=True,
            )
    print(f"load at the end {os.getloadavg()[0]:.1f}")


def take_turns(engines: dict[str, Callable], batch: np.ndarray, turns: int) -> dict:
    """Return wall and processor seconds of each turn of each engine."""
    seconds = {name: [] for name in engines}
    for _ in range(turns):
        for name, run in engines.items():
            begin, used = time.perf_counter(), time.process_time()
            run(batch)
            seconds[name].append((time.perf_counter() - begin, time.process_time() - used))
    return seconds


def make_scene(folder: Path, size: int, *, context: int = 0) -> Scene:
    """Write a scene of 13 bands of seeded noise, every frame half under clouds when there are more.

    Args:
        folder: where to write; 26 bytes per pixel and frame.
        size: rows and columns.
        context: frames beside the target.
    """
    grid = Grid("EPSG:32633", TRANSFORM, size, size)
    frames = []
    for number in range(context + 1):
        date, path = f"2020-06-{number + 1:02d}", folder / f"{number}.tif"
        rng = np.random.default_rng(number)
        write_noise(path, grid, rng.integers(300, 4000, (len(L1C13), BLOCK, BLOCK), np.uint16))
        mask = folder / f"{number}-mask.tif" if context else None
        if mask:
            write_noise(mask, grid, clouds(number))
        role = "context" if number else "target"
        frames.append(Frame(date, role, path, L1C13, mask, checksum=f"{size}-{number}"))
    return Scene(f"scene-{size}", "none", "p", grid, tuple(frames), {"level": "L1C"})


def clouds(number: int) -> np.ndarray:
    """Return classes and cloud probability of a block, stripes that move from frame to frame."""
    rows, cols = np.mgrid[:BLOCK, :BLOCK]
    cloudy = (rows + 2 * cols + 40 * number) % 256 < 128
    return np.stack([np.where(cloudy, CLOUD, 0), np.where(cloudy, 90, 5)]).astype(np.uint8)


def write_noise(path: Path, grid: Grid, block: np.ndarray) -> None:
    """Write a raster that repeats one block, each time rolled to another place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {
        "driver": "GTiff",
        "height": grid.height,
        "width": grid.width,
        "count": len(block),
        "dtype": block.dtype,
        "transform": grid.affine,
        "crs": grid.crs,
        "tiled": True,
        "blockxsize": BLOCK,
        "blockysize": BLOCK,
        "bigtiff": "if_safer",
    }
    with rasterio.open(path, "w", **profile) as writer:
        for number, window in enumerate(grid.windows(BLOCK)):
            rolled = np.roll(block, 37 * number, axis=2)
            writer.write(rolled[:, : int(window.height), : int(window.width)], window=window)


def peak_mib() -> float:
    """Return the largest resident memory of this process, not of what started it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) / 1024


def memory_model(kind: str, folder: Path, *, features: int, blocks: int) -> Model:
    """Return a model of the memory benchmark: 13 bands, and all frames where it uses them."""
    if kind != "dsen2cr":
        return create(ModelSpec(kind, kind))
    weights, shape = folder / "weights.npz", {"features": features, "blocks": blocks}
    write_arrays(weights, make_weights(channels=13, bands=13, **shape))
    options = {**shape, "radar": False}
    return create(ModelSpec("dsen2cr", "dsen2cr", weights=weights, options=options))


def run_alone(args: argparse.Namespace) -> None:
    """Run the engine on one scene and print its costs; the whole work of a process."""
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        [kind] = args.kinds
        model = memory_model(kind, folder, features=args.features, blocks=args.blocks)
        inference = InferenceOptions(
            tile_px=args.tile, gpu="never", backend=args.backend, precision=args.precision
        )
        scene = make_scene(folder / "scene", args.alone, context=CONTEXT)
        before = peak_mib()
        [record] = run_shard(model, [scene], folder / "out", inference, code="")
        share = record["model_seconds"] / record["wall_seconds"]
        print(
            f"{kind:10}  {args.alone:6}  {record['backend']:10} {record['precision']:14}  "
            f"{record['tile_px']:5}  {record['tiles']:5}  {before:6.0f}  {peak_mib():6.0f}  "
            f"{record['wall_seconds']:7.1f}  {share:6.2f}",
            flush=True,
        )


def print_memory(args: argparse.Namespace) -> None:
    """Print the peak memory for scenes of several sizes, each in a process of its own."""
    print(
        f"13 bands, {CONTEXT} context frames; MiB resident; dsen2cr with {args.features} features"
    )
    print(
        "model         size  backend    precision       tile  tiles  before    peak   wall s"
        "  in the model"
    )
    for kind, size in product(args.kinds, args.sizes):
        command = [sys.executable, __file__, "memory", f"--alone={size}", f"--tile={args.tile}"]
        command += ["--kinds", kind, *([f"--folder={args.folder}"] if args.folder else [])]
        keys = ("features", "blocks", "backend", "precision")
        command += [f"--{key}={getattr(args, key)}" for key in keys]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        print(done.stdout, end="", flush=True)


NETWORKS = {"small": {"features": 32, "blocks": 4}, "full": {"features": 256, "blocks": 16}}
"""Sizes of DSen2-CR: a small one, and the published one."""


def print_shards(args: argparse.Namespace) -> None:
    """Print the share of a shard's time that is spent in the model, and in its network alone.

    ``predict`` also scales its input and fills gaps. Starting TensorFlow and loading the
    weights happens once a job and is printed apart.
    """
    shape = NETWORKS[args.network]
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        weights = folder / "weights.npz"
        write_arrays(weights, make_weights(channels=13, bands=13, **shape))
        spec = ModelSpec("m", "dsen2cr", weights=weights, options={**shape, "radar": False})
        model = TimedDsen2Cr(spec)
        ids = [f"patch-{number}" for number in range(args.patches)]
        scenes = [replace(make_scene(folder / id, args.size), id=id) for id in ids]
        inference = InferenceOptions(gpu=args.gpu, precision=args.precision)
        begin = time.perf_counter()
        records = run_shard(model, scenes, folder / "out", inference, code="")
        wall = time.perf_counter() - begin
    starting = model.loaded - begin
    print(
        f"DSen2-CR, {shape['features']} features, {shape['blocks']} blocks, 13 bands, "
        f"{records[0]['precision']}, {records[0]['device']}, {len(os.sched_getaffinity(0))} cores, "
        f"load {os.getloadavg()[0]:.1f}"
    )
    print(f"{args.patches} patches of {args.size} pixels in {wall:.1f} s, {starting:.1f} to start")
    print("                seconds  share of all  share after the start")
    inside = sum(record["model_seconds"] for record in records)
    for part, seconds in (("in predict", inside), ("in the network", model.network_seconds)):
        shares = f"{seconds / wall:12.3f}  {seconds / (wall - starting):21.3f}"
        print(f"{part:14}  {seconds:7.1f}  {shares}")


class TimedDsen2Cr(Dsen2Cr):
    """DSen2-CR with a clock around its network."""

    loaded = network_seconds = 0.0

    def load(self) -> None:
        """Load the network, and say when that was done."""
        super().load()
        run = self._run

        def timed(batch: np.ndarray) -> np.ndarray:
            begin = time.perf_counter()
            output = run(batch)
            self.network_seconds += time.perf_counter() - begin
            return output

        self._run, self.loaded = timed, time.perf_counter()


def print_halo(args: argparse.Namespace) -> None:
    """Print computed over useful pixels for the halo of the published network."""
    print(f"computed over useful pixels, halo {RECEPTIVE_FIELD}")
    print("  size   tile  ratio")
    for size in args.sizes:
        grid = Grid("", TRANSFORM, size, size)
        for tile_px in (512, 1024, 2048):
            print(f"{size:6}  {tile_px:5}  {halo_cost(grid, tile_px):5.3f}")
    allowed = InferenceOptions().memory_mb
    print(
        f"tile_px auto in {allowed} MB, of which {args.resident} MB are held before the first tile"
    )
    print("  size  engine                      tile  ratio")
    for size in args.sizes:
        grid = Grid("", TRANSFORM, size, size)
        for engine in ENGINES:
            tile_px = automatic_tile(grid, engine, resident=args.resident * 10**6)
            print(f"{size:6}  {engine:25}  {tile_px:5}  {halo_cost(grid, tile_px):5.3f}")


def print_precision(args: argparse.Namespace) -> None:
    """Print how far lower precision moves the PSNR of the small trained network, scene by scene."""
    root = Path(__file__).parents[1]
    table = read_yaml(root / "config" / "models.yaml")
    spec = ModelSpec.from_row("dsen2cr-small", table["dsen2cr-small"])
    weights, models = root / spec.weights, {}
    for engine in ("tensorflow float32", *ENGINES[1::2]):
        model = Dsen2Cr(replace(spec, weights=weights))
        model.backend, model.precision = engine.split()
        model.load()
        models[engine] = model
    options = model.options
    layers = layers_of(
        read_weights(weights), options.kernel_shapes, dilations=options.layer_dilations
    )
    print("PSNR in dB of float32, and what else adds; int8 is calibrated on a half of the scene")
    print(f"{'scene':30}  float32  TF bfloat16  OpenVINO bfloat16     int8  int8's bound")
    for path in sorted(args.results.glob("scenes/*/scene.json")):
        scene = load_scene(path)
        references = scene.with_role("reference")
        if not references:
            continue
        inputs, truth = read_inputs(scene.without_truth()), read_reflectance(references[0], CORE6)
        answers = [model.predict(inputs).reflectance for model in models.values()]
        full, *halves = [psnr(answer, truth) for answer in answers]
        target_dn, _ = model._arrays(inputs)
        fill = fill_values(target_dn, None)
        image = network_input(target_dn, None, fill)[None]
        half = image.shape[2] // 2
        run, bound = int8.compile_int8(
            layers, calibration=[image[:, :, :half]], held_out=[image[:, :, half:]]
        )
        rounded = np.moveaxis(run(image)[0], -1, 0) * np.float32(1 / UNITS_PER_REFLECTANCE)
        rounded[np.isnan(target_dn)] = np.nan
        tf, ov = (value - full for value in halves)
        last = psnr(rounded, truth) - full
        print(f"{scene.id:30}  {full:7.2f}  {tf:+11.4f}  {ov:+17.4f}  {last:+7.4f}  {bound:12.4f}")


def halo_cost(grid: Grid, tile_px: int) -> float:
    """Return computed over useful pixels."""
    tiles = tiles_of(grid, tile_px=tile_px, halo=RECEPTIVE_FIELD)
    return sum(tile.outer.width * tile.outer.height for tile in tiles) / grid.pixels


def automatic_tile(grid: Grid, engine: str, *, resident: int) -> int:
    """Return the tile that the engine would choose for the published network."""
    model = Dsen2Cr(ModelSpec("published", "dsen2cr"))
    model.backend, model.precision = engine.split()
    model.bytes_per_px = model.window_bytes_per_px()
    return even_tile(grid, largest_tile(model, InferenceOptions(), CPU, resident=resident))


def tile(text: str) -> int | str:
    """Read the edge of a tile."""
    return text if text == "auto" else int(text)


def main() -> None:
    """Print the table that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = parser.add_subparsers(required=True)
    speed = parts.add_parser("speed", help="against PyTorch, one patch at a time")
    speed.add_argument("--sizes", type=int, nargs="+", default=[128, 256])
    speed.add_argument("--turns", type=int, default=5)
    speed.add_argument("--features", type=int, default=256)
    speed.add_argument("--blocks", type=int, default=16)
    speed.add_argument("--engines", nargs="+", default=list(ENGINES), choices=ENGINES)
    speed.set_defaults(run=print_speed)
    memory = parts.add_parser("memory", help="peak memory for scenes of several sizes")
    memory.add_argument(
        "--sizes", type=int, nargs="+", default=[1024, 2048, 4096, 10980], metavar="PIXELS"
    )
    memory.add_argument("--tile", type=tile, default=1024, help="edge in pixels, or auto")
    memory.add_argument(
        "--kinds", nargs="+", default=["dsen2cr", "regressed"], help="models without options"
    )
    memory.add_argument("--features", type=int, default=32)
    memory.add_argument("--blocks", type=int, default=4)
    memory.add_argument("--backend", default="auto")
    memory.add_argument("--precision", default="float32")
    memory.add_argument("--folder", help="where scenes are written, 196 bytes per pixel")
    memory.add_argument("--alone", type=int, help=argparse.SUPPRESS)
    memory.set_defaults(run=lambda args: run_alone(args) if args.alone else print_memory(args))
    shards = parts.add_parser("shards", help="share of the time in the model, many patches")
    shards.add_argument("--patches", type=int, default=500)
    shards.add_argument("--size", type=int, default=256)
    shards.add_argument("--network", choices=["small", "full"], default="small")
    shards.add_argument("--precision", default="auto")
    shards.add_argument("--gpu", default="never", help="never, preferred or required")
    shards.add_argument("--folder", help="where the patches are written, 2 MB each")
    shards.set_defaults(run=print_shards)
    precision = parts.add_parser("precision", help="what lower precision costs on real scenes")
    precision.add_argument("results", type=Path, help="results of the demo (make demo)")
    precision.set_defaults(run=print_precision)
    halo = parts.add_parser("halo", help="what the halo costs")
    halo.add_argument("--sizes", type=int, nargs="+", default=[4096, 10980])
    halo.add_argument("--resident", type=int, default=1000, help="MB held before the first tile")
    halo.set_defaults(run=print_halo)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
