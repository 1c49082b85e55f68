"""What fetching a place costs: bytes moved per useful byte, and throughput, beside plain odc-stac.

A nginx on loopback serves Cloud-Optimised GeoTIFFs of the size of Sentinel-2 bands (one tile of
10980 pixels at 10 m, 512-pixel blocks, deflate). Useful are the compressed blocks that hold the
place: no reader can do with less. Both readers run in this process, in turns, each without any
cache; then once more, as when a run is repeated.

    python benchmarks/stac.py [--turns 3] [--latency-ms 50]

With a latency, every connection and every request waits for so long, as on the way to a data
centre; a relay in a process of its own does that.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime as dt
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pystac
import rasterio
from rasterio.transform import from_origin
from scipy.ndimage import gaussian_filter

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

from tests.services.stac_data import write_cog  # noqa: E402
from tests.services.stac_servers import FileServer, file_server  # noqa: E402

from unveil.raster import Grid  # noqa: E402
from unveil.remote.range_cache import RangeCache, run_parallel, total  # noqa: E402
from unveil.remote.raster_windows import mosaic, plan_cut, write_cut  # noqa: E402
from unveil.sources.stac.read import as_stored  # noqa: E402

CRS, WEST, NORTH, PIXELS = "EPSG:32631", 499_980, 5_700_000, 10_980
BANDS = ("B02", "B08")
PLACES = (256, 1024, 4096)


def make_files(root: Path) -> None:
    """Write one file per band: a smooth surface with the noise of a sensor."""
    rng = np.random.default_rng(2)
    block = 1200 + 500 * gaussian_filter(rng.normal(0, 1, (1220, 1220)), 6)
    for number, band in enumerate(BANDS):
        noisy = np.tile(block, (9, 9)) + rng.normal(0, 25, (PIXELS, PIXELS)) + 300 * number
        image = noisy.clip(1).astype(np.uint16)
        write_cog(root / f"{band}.tif", image, from_origin(WEST, NORTH, 10, 10), CRS)


@contextlib.contextmanager
def far_away(server: FileServer, seconds: float) -> Iterator[FileServer]:
    """Give the server an address behind a relay that delays what is asked of it."""
    if not seconds:
        yield server
        return
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    port = urlsplit(server.url).port
    process = context.Process(target=relay, args=(port, seconds, sender), daemon=True)
    process.start()
    yield replace(server, url=f"http://127.0.0.1:{receiver.recv()}")
    process.terminate()


def relay(port: int, seconds: float, sender: Any) -> None:
    """Pass bytes on to a port of this machine, those of clients ``seconds`` later."""

    async def copy(reader, writer, delay: float) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(2**18):
                await asyncio.sleep(delay)
                writer.write(data)
                await writer.drain()
        writer.close()

    async def connect(reader, writer) -> None:
        await asyncio.sleep(seconds)
        upstream = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(copy(reader, upstream[1], seconds), copy(upstream[0], writer, 0))

    async def serve() -> None:
        listener = await asyncio.start_server(connect, "127.0.0.1", 0)
        sender.send(listener.sockets[0].getsockname()[1])
        await listener.serve_forever()

    asyncio.run(serve())


def place_grid(pixels: int) -> Grid:
    """Return a grid that begins inside a block, as places do."""
    west, north = WEST + 10 * 3210, NORTH - 10 * 2230
    return Grid(CRS, (10.0, 0.0, west, 0.0, -10.0, north), pixels, pixels)


def fetch(server: FileServer, grid: Grid, cache: RangeCache) -> tuple[np.ndarray, int]:
    """Read the place as the source does; return pixels and useful bytes."""
    remotes = run_parallel(
        lambda band: cache.describe(f"{server.url}/{band}.tif"), BANDS, workers=cache.connections
    )
    cuts = run_parallel(lambda r: plan_cut(cache, r, grid), remotes, workers=cache.connections)
    cache.fetch({cut.remote: cut.spans for cut in cuts}, name="benchmark")
    with tempfile.TemporaryDirectory() as folder:
        parts = {}
        for band, cut in zip(BANDS, cuts, strict=True):
            parts[band] = Path(folder) / f"{band}.tif"
            write_cut(cache, cut, grid, parts[band], convert=as_stored, nodata=0)
        out = Path(folder) / "out.tif"
        mosaic([parts], grid, out, bands=BANDS, resampling="nearest", nodata=0)
        with rasterio.open(out) as dataset:
            return dataset.read(), sum(total(cut.spans) for cut in cuts)


def plain(server: FileServer, grid: Grid, turn: int) -> np.ndarray:
    """Read the place with odc-stac alone, four threads, as its documentation shows.

    Addresses differ between turns, so that GDAL remembers nothing of the turn before.
    """
    import odc.stac
    from odc.geo.geobox import GeoBox

    item = pystac.Item("x", None, None, dt.datetime(2020, 1, 1), {})
    item.stac_extensions = ["https://stac-extensions.github.io/projection/v2.0.0/schema.json"]
    fields = {"proj:code": CRS, "proj:shape": [PIXELS, PIXELS]}
    fields |= {"proj:transform": list(from_origin(WEST, NORTH, 10, 10))}
    fields |= {"raster:bands": [{"nodata": 0, "data_type": "uint16"}]}
    for band in BANDS:
        asset = pystac.Asset(f"{server.url}/{band}.tif?{turn}", roles=["data"], extra_fields=fields)
        item.add_asset(band, asset)
    odc.stac.configure_rio(cloud_defaults=True)
    box = GeoBox(grid.shape, grid.affine, grid.crs)
    cube = odc.stac.load([item], bands=BANDS, geobox=box, resampling="nearest", pool=4)
    return np.stack([cube[band].values[0] for band in BANDS])


def measure(server: FileServer, read: Callable, *arguments: Any) -> tuple[float, int, Any]:
    """Return seconds, bytes that the server sent, and the result."""
    before, began = server.bytes_sent(), time.perf_counter()
    result = read(server, *arguments)
    seconds = time.perf_counter() - began
    return seconds, server.bytes_sent() - before, result


def compare(server: FileServer, pixels: int, turns: int) -> None:
    """Print a row a reader: medians over the turns."""
    grid, rows = place_grid(pixels), {}
    for turn in range(turns):
        with tempfile.TemporaryDirectory() as folder:
            cache = RangeCache(folder)
            for name in ("Unveil", "Unveil again"):
                seconds, moved, (image, useful) = measure(server, fetch, grid, cache)
                rows.setdefault(name, []).append((seconds, moved))
        for name in ("odc-stac", "odc-stac again"):
            seconds, moved, result = measure(server, plain, grid, turn)
            assert np.array_equal(result, image), "the readers disagree"
            rows.setdefault(name, []).append((seconds, moved))
    for name, measured in rows.items():
        seconds = statistics.median(s for s, _ in measured)
        moved = statistics.median(m for _, m in measured)
        rate = useful / seconds / 1e6
        print(
            f"| {pixels} px | {name} | {moved / 1e6:.2f} | {moved / useful:.3f} | "
            f"{seconds:.2f} | {rate:.1f} |"
        )


def main() -> None:
    """Make the files, serve them, compare the readers."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--latency-ms", type=float, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        root = Path(folder) / "files"
        root.mkdir()
        make_files(root)
        with (
            file_server(root, Path(folder) / "nginx") as near,
            far_away(near, arguments.latency_ms / 1000) as server,
        ):
            import odc.stac  # noqa: F401 - loaded before anything is timed

            print(
                f"load {os.getloadavg()[0]:.1f}; {len(BANDS)} bands; medians of "
                f"{arguments.turns}; latency {arguments.latency_ms:g} ms"
            )
            print("| place | reader | MB moved | moved per useful byte | s | useful MB/s |")
            print("|---|---|---|---|---|---|")
            for pixels in PLACES:
                compare(server, pixels, arguments.turns)


if __name__ == "__main__":
    main()
