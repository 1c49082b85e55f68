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
from tests.golden.drawn import utilise_weights

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


def uncrtaints(golden: Path) -> Arrays:
    """UnCRtainTS up to its attention: the encoder's features of a frame, and the attention."""
    parts = ("state/in_conv", "state/in_block", "state/temporal_encoder")
    vectors = read(golden / "C_uncrtaints_forward.npz", *parts, "small32/")
    features = vectors.pop("small32/in_block_output_t0")
    del vectors["small32/raw_output"]
    return {**vectors, "small32/in_block_output_t0": features[:, ::4, ::4, ::4]}


def utilise(golden: Path) -> Arrays:
    """U-TILISE (EarthNet) on a sequence with a padded frame, its weights to be drawn again."""
    case = "padded_last_frame"
    vectors = read(golden / "D_utilise_earthnet.npz", "state/", f"{case}/")
    state = {n.removeprefix("state/"): a for n, a in vectors.items() if n.startswith("state/")}
    # The norms are not drawn in turn; the attention's and the smallest bias are drawn otherwise.
    names = [name for name in state if "norm" not in name]
    stored = [n for n in state if "norm" in n or "attention_heads" in n or state[n].size < 16]
    cut = {
        "seed": np.array(20461),
        "first": np.array(1_079_556),
        "names": np.array(names),
        **{f"state/{name}": state[name] for name in stored},
        "wrong": np.empty(0, np.int64),
        "right": np.empty(0, np.float32),
    }
    found = utilise_weights(cut, {name: array.shape for name, array in state.items()})
    drawn = [name for name in names if name not in stored]
    ours, theirs = (np.concatenate([s[n].ravel() for n in drawn]) for s in (found, state))
    cut["wrong"] = np.flatnonzero(ours != theirs)
    cut["right"] = theirs[cut["wrong"]]
    return {
        **cut,
        "input_dn": np.rint(vectors[f"{case}/input"].astype(np.float64) * 1e4).astype(np.float32),
        "days": vectors[f"{case}/days"],
        "output": vectors[f"{case}/output"][..., ::3, ::3],
        "attention": vectors[f"{case}/attention_head_b_tout_tin_h_w"],
    }


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
