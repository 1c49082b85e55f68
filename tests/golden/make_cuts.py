"""Cut from the golden vectors what is small enough to lie beside the tests.

Run: ``python -m tests.golden.make_cuts GOLDEN``, where GOLDEN is the folder of the outputs of
the published codes. Writes ``tests/golden/data/*.npz``, the same bytes each time; what they
are, and whose, is in ``tests/golden/data/README.md``.

A cut is a part of an input with the part of the published output that depends on nothing else:
a corner (with its zero padding) less the receptive field, single pixels, one band. Weights of
several MB are given by what they were drawn with, where that gives them to the bit. Numbers are
never changed; those that fit float16 or uint16 are stored so.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from tests.golden.drawn import default_bound, draw_again, glorot

DATA = Path(__file__).parent / "data"
SMALL = (slice(64, 112), slice(64, 112))
"""A window of the real triplet with cloud, shadow and clear pixels."""

Arrays = dict[str, np.ndarray]


def read(path: Path, *prefixes: str) -> Arrays:
    """Read the arrays of a file whose names begin with one of the prefixes (default: all)."""
    with np.load(path) as archive:
        return {n: archive[n] for n in archive.files if not prefixes or n.startswith(prefixes)}


def small_dsen2cr(golden: Path) -> Arrays:
    """DSen2-CR of 32 features and 4 blocks: ten convolutions, so ten pixels from the cut."""
    vectors = read(golden / "A1_small_sar.npz")
    size, reach = 26, 10
    return {
        **{name: vectors[name] for name in vectors if name.startswith(("kernel_", "bias_"))},
        "x": vectors["x_rand"][:1, :size, :size],
        "y": vectors["y_rand"][:1, : size - reach, : size - reach],
    }


def full_dsen2cr(golden: Path) -> Arrays:
    """DSen2-CR of the published size, whose weights are drawn by a recipe."""
    vectors = read(golden / "A1_full_recipe.npz")
    vectors["y"] = vectors["y"][:, ::6, ::6]
    return vectors


def dsen2cr_input(golden: Path) -> Arrays:
    """What DSen2-CR makes of a real image, and of one with missing values."""
    triplet, vectors = read(golden / "real_triplet.npz"), read(golden / "A2_preprocessing.npz")
    row, col = (int(part) for part in vectors["crop_origin_row_col"])
    crop = (slice(row, row + 16), slice(col, col + 16))
    part = (slice(0, 16), slice(0, 16))
    return {
        "optical_dn": triplet["s2_cloudy_dn"][crop],
        "radar_db": triplet["s1_db"][crop],
        "y": vectors["crop_y"][0][part],
        "nan_optical_dn": vectors["nan_in_s2_dn"][part],
        "nan_radar_db": vectors["nan_in_s1_db"][part],
        "nan_y": vectors["nan_y"][0][part],
        "nan_fill_optical": vectors["nan_fill_value_s2"],
        "nan_fill_radar": vectors["nan_fill_value_s1"],
    }


def threshold_mask(golden: Path) -> Arrays:
    """Cloud scores of a window: closing and box filter reach less than 10 pixels."""
    triplet = read(golden / "real_triplet.npz")
    vectors = read(golden / "A3_cloud_shadow_mask.npz", "full_")
    inner = tuple(slice(side.start + 10, side.stop - 10) for side in SMALL)
    return {
        "optical_dn": triplet["s2_cloudy_dn"][SMALL],
        "score_raw_clipped": vectors["full_score_raw_clipped"][SMALL],
        "inner_score_closed_clipped": vectors["full_score_closed_clipped"][inner],
        "inner_cloud_score": vectors["full_cloud_score"][inner],
        "inner_cloud_score_moist_check": vectors["full_cloud_score_moist_check"][inner],
    }


Draw = tuple[int, float, bool]
"""Numbers drawn before a weight, its standard deviation or bound, and whether it is normal."""


def redrawn(state: Arrays, seed: int, draws: dict[str, Draw], *, step: float = 0.0) -> Arrays:
    """Return what :func:`tests.golden.drawn.draw_again` makes a state of, to the bit.

    Args:
        state: all weights.
        seed: of the generator.
        draws: how those were drawn that are drawn again.
        step: of the optimiser that followed, up or down by as much at nearly every weight.
    """
    starts, scales, normal = (list(column) for column in zip(*draws.values(), strict=True))
    cut = {
        "seed": np.array(seed),
        "names": np.array(list(draws)),
        "starts": np.array(starts),
        "scales": np.array(scales),
        "normal": np.array(normal),
        **{f"state/{name}": array for name, array in state.items() if name not in draws},
        "wrong": np.empty(0, np.int64),
        "right": np.empty(0, np.float32),
    }
    shapes = {name: array.shape for name, array in state.items()}

    def flat(arrays: Arrays) -> np.ndarray:
        return np.concatenate([arrays[name].ravel() for name in draws])

    if step:
        up = flat(state) > flat(draw_again(cut, shapes))
        cut |= {"signs": np.packbits(up), "step": np.array(step)}
    cut["wrong"] = np.flatnonzero(flat(state) != flat(draw_again(cut, shapes)))
    cut["right"] = flat(state)[cut["wrong"]]
    return cut


def state_of(vectors: Arrays) -> Arrays:
    """Return the weights among vectors by their own names."""
    return {n.removeprefix("state/"): a for n, a in vectors.items() if n.startswith("state/")}


def uncrtaints(golden: Path) -> Arrays:
    """UnCRtainTS on two frames: all of the output, features of a frame, the attention.

    Layers start as PyTorch has it by default, but for the keys of the attention; then came one
    step of Adam.
    """
    vectors = read(golden / "C_uncrtaints_forward.npz", "state/", "small32/")
    state = state_of(vectors)
    state = {name: a for name, a in state.items() if not name.endswith("num_batches_tracked")}
    heads = "temporal_encoder.attention_heads"
    biases = ("in_conv.conv.conv.0", "temporal_encoder.inconv", "out_conv.conv.conv.0")
    draws: dict[str, Draw] = {}
    place = 0
    for name, array in state.items():
        if name == f"{heads}.Q":
            place += array.size
        elif name == f"{heads}.fc1_k.weight":  # drawn once by default, and again after its bias
            after_bias = place + array.size + array.shape[0]
            draws[name] = (after_bias, float(np.sqrt(2 / state[f"{heads}.Q"].shape[1])), True)
            place += array.size
        elif name == f"{heads}.fc1_k.bias":
            draws[name] = (place, default_bound(state[f"{heads}.fc1_k.weight"].shape), False)
            place += array.size + state[f"{heads}.fc1_k.weight"].size
        elif array.ndim > 1 or name.removesuffix(".bias") in biases:
            kernel = state[f"{name.rpartition('.')[0]}.weight"]
            draws[name] = (place, default_bound(kernel.shape), False)
            place += array.size
    whole = ("input_01", "dates", "attention_lowres")
    features, output = vectors["small32/in_block_output_t0"], vectors["small32/raw_output"]
    return {
        **redrawn(state, 20361, draws, step=1e-3),
        **{f"small32/{name}": vectors[f"small32/{name}"] for name in whole},
        "small32/in_block_output_t0": features[:, ::8, ::4, ::4],
        "small32/raw_output": output[..., ::3, ::3],
    }


def utilise(golden: Path) -> Arrays:
    """U-TILISE (EarthNet) on a sequence with a padded frame."""
    case = "padded_last_frame"
    vectors = read(golden / "D_utilise_earthnet.npz", "state/", f"{case}/")
    return {
        **utilise_weights(vectors, 20461),
        "input_dn": np.rint(vectors[f"{case}/input"].astype(np.float64) * 1e4).astype(np.float32),
        "days": vectors[f"{case}/days"],
        "output": vectors[f"{case}/output"][..., ::3, ::3],
        "attention": vectors[f"{case}/attention_head_b_tout_tin_h_w"],
    }


def utilise_sen12mscrts(golden: Path) -> Arrays:
    """U-TILISE (SEN12MS-CR-TS): 13 bands, five levels."""
    vectors = read(golden / "D_utilise_sen12mscrts.npz", "state/", "main/")
    return {
        **utilise_weights(vectors, 20471),
        "input_dn": np.rint(vectors["main/input"].astype(np.float64) * 1e4).astype(np.float32),
        "days": vectors["main/days"],
        "output": vectors["main/output"][..., ::4, ::4],
    }


def utilise_weights(vectors: Arrays, seed: int) -> Arrays:
    """Return how U-TILISE's weights are drawn again.

    Its authors' initialisation draws layer by layer: kernels by Glorot & Bengio, in these vectors
    twice as wide in the last layers; biases with a standard deviation of 1, here a tenth. The
    norms are not drawn in turn; the attention's weights and the smallest bias are drawn otherwise.
    Before, PyTorch drew all weights once, and some of the attention's again.
    """
    state = state_of(vectors)
    draws: dict[str, Draw] = {}
    place = sum(array.size for array in state.values()) + 3584
    for name, array in state.items():
        wide = 2 if name.startswith("out_conv") else 1
        if array.size >= 16 and "norm" not in name and "attention_heads" not in name:
            scale = wide * glorot(array.shape) if name.endswith("weight") else 0.1
            draws[name] = (place, scale, True)
        place += 0 if "norm" in name else array.size
    return redrawn(state, seed, draws)


def utilise_input(golden: Path) -> Arrays:
    """What U-TILISE makes of a real image in each of its configurations."""
    triplet = read(golden / "real_triplet.npz")
    crop, part = (slice(90, 106), slice(30, 46)), (0, 0, slice(None), slice(16), slice(16))
    files = {
        "earthnet": "D_utilise_earthnet.npz",
        "sen12mscrts": "D_utilise_sen12mscrts.npz",
        "sen12mscrts-s1": "D_utilise_sen12mscrts_with_s1.npz",
    }
    inputs = {name: read(golden / file, "main/input") for name, file in files.items()}
    return {
        "optical_dn": triplet["s2_cloudfree_dn"][crop],
        "radar_db": triplet["s1_db"][crop],
        **{f"{name}/input": vectors["main/input"][part] for name, vectors in inputs.items()},
    }


def anytimeformer_input(golden: Path) -> Arrays:
    """Two pixels' series and what AnytimeFormer makes of them."""
    vectors = read(golden / "E_anytimeformer.npz")
    rows, cols = np.divmod(vectors["pixel_index"][:2], 64)
    return {
        "reflectance_dn": vectors["scene_reflectance_dn"][:, rows, cols],
        "radar_db": vectors["scene_s1_db_20m"][:, rows // 2, cols // 2],
        **{name: vectors[name][:2] for name in ("x_norm", "x_aux_norm", "valid_in")},
    }


def vpint2(golden: Path) -> Arrays:
    """VPint2 on the first of its bands, which are filled one by one; iterations of all runs."""
    vectors = read(golden / "F_vpint2.npz")
    one_band = ("target_dn", "reference_dn", "reference_with_zeros_dn")
    runs = [name for name in vectors if name.startswith("out_")]
    return {
        **{name: vectors[name][..., :1] for name in (*one_band, *runs)},
        **{name: vectors[name][:1] for name in vectors if name.startswith("iters_")},
        **{name: vectors[name][:16, :16] for name in vectors if name.startswith("weights_b0_")},
        **{name: vectors[name] for name in ("mask", "buffered_missing")},
    }


CUTS = {
    "dsen2cr_small": small_dsen2cr,
    "dsen2cr_full": full_dsen2cr,
    "dsen2cr_input": dsen2cr_input,
    "threshold_mask": threshold_mask,
    "uncrtaints": uncrtaints,
    "utilise": utilise,
    "utilise_sen12mscrts": utilise_sen12mscrts,
    "utilise_input": utilise_input,
    "anytimeformer_input": anytimeformer_input,
    "vpint2": vpint2,
}


def narrowed(array: np.ndarray) -> np.ndarray:
    """Return the same numbers in a type of half the size where they fit it exactly."""
    for dtype in (np.uint16, np.float16) if array.dtype == np.float32 else ():
        with np.errstate(all="ignore"):
            narrow = array.astype(dtype)
        if np.array_equal(narrow.astype(np.float32), array):
            return narrow
    return array


def main(golden: Path) -> None:
    """Write all cuts."""
    DATA.mkdir(exist_ok=True)
    for name, cut in CUTS.items():
        arrays = {key: narrowed(array) for key, array in cut(golden).items()}
        np.savez_compressed(DATA / f"{name}.npz", **arrays)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
