"""Boosted trees of LightGBM on many pixels at once, bit for bit what the library answers.

A model splits each band at a few hundred values only, so that a pixel is ten bytes: how many
split values lie below each of its bands. Blocks of pixels go through one tree after the other,
while that tree is in the processor's fastest cache, and some pixels take turns, so that none
waits for memory. Leaves are added in float64 in the order of the trees, as the library does.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

OBJECTIVE = "binary sigmoid:1"
NUMERICAL = "2"
"""LightGBM's ``decision_type`` of a split ``value <= threshold`` without values for "missing"."""
MOST_CUTS = 255
"""Split values of one band: their ranks fit a byte, whose highest value is above them all."""
MOST_BANDS = 16
MOST_NODES = 2**15
"""Nodes and leaves of a tree: their positions fit the upper half of a word."""
BLOCK = 256
"""Pixels that go through a tree together."""
TURNS = 8
"""Of these, pixels that take turns."""
SHARE = 64 * BLOCK
"""Pixels of a thread's share."""


@dataclass(frozen=True)
class Trees:
    """A model of trees, laid out for :func:`probability_of`.

    Attributes:
        words: ``(N,)`` int32, a node each: 16 bits position of its first child in its tree, the
            other one follows; 8 bits rank of its split value; 8 bits band. The root comes
            first. A leaf is its own first child, and no rank exceeds its 255.
        leaves: ``(N,)`` float64, what a leaf adds.
        starts: ``(trees + 1,)`` int64, where each tree starts.
        cuts: ``(bands, 256)`` float64, the split values of each band, sorted, then infinity.
    """

    words: np.ndarray
    leaves: np.ndarray
    starts: np.ndarray
    cuts: np.ndarray


def read_trees(path: Path) -> Trees | None:
    """Read a model file of LightGBM; None where it holds what :func:`probability_of` does not know.

    Known are binary classifiers on numbers without an own treatment of missing values.
    """
    try:
        head, *blocks = path.read_text("ascii").split("end of trees")[0].split("\nTree=")
        facts = _facts(head)
        trees = [_facts(block) for block in blocks]
        if not _is_known(facts, trees):
            return None
        return _lay_out(trees, int(facts["max_feature_idx"]) + 1)
    except (OSError, LookupError, ValueError):
        return None


def _facts(block: str) -> dict[str, str]:
    lines = (line.partition("=") for line in block.splitlines())
    return {name: value for name, mark, value in lines if mark}


def _is_known(facts: dict[str, str], trees: list[dict[str, str]]) -> bool:
    return (
        facts["objective"] == OBJECTIVE
        and facts["num_tree_per_iteration"] == "1"
        and "average_output" not in facts
        and int(facts["max_feature_idx"]) < MOST_BANDS
        and all(tree["num_cat"] == "0" for tree in trees)
        and all(set(tree["decision_type"].split()) == {NUMERICAL} for tree in trees)
        and all(2 * int(tree["num_leaves"]) < MOST_NODES for tree in trees)
    )


def _lay_out(trees: list[dict[str, str]], bands: int) -> Trees:
    splits = [
        (_numbers(tree["split_feature"], int), _numbers(tree["threshold"], float)) for tree in trees
    ]
    split_bands, values = (np.concatenate(each) for each in zip(*splits, strict=True))
    cuts = [np.unique(values[split_bands == band]) for band in range(bands)]
    if max(map(len, cuts)) > MOST_CUTS:
        raise ValueError("more split values than a byte can count")
    padded = np.full((bands, MOST_CUTS + 1), np.inf)
    for band, sorted_values in enumerate(cuts):
        padded[band, : len(sorted_values)] = sorted_values
    laid = [_lay_out_one(tree, *split, padded) for tree, split in zip(trees, splits, strict=True)]
    starts = np.cumsum([0, *(len(words) for words, _ in laid)])
    words, leaves = (np.concatenate(each) for each in zip(*laid, strict=True))
    return Trees(words, leaves, starts, padded)


def _lay_out_one(
    tree: dict[str, str], bands: np.ndarray, values: np.ndarray, cuts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the words and leaves of a tree, breadth first, so that siblings are neighbours."""
    left, right = (_numbers(tree[f"{side}_child"], int).tolist() for side in ("left", "right"))
    nodes, first_child = [0], []  # of LightGBM: below zero, a leaf
    for position, one in enumerate(nodes):  # the list grows as it is read
        first_child.append(position if one < 0 else len(nodes))
        if one >= 0:
            nodes += [left[one], right[one]]
    node = np.array(nodes)
    inner = node >= 0
    split = node[inner]
    leaves = np.zeros(len(node))
    band, rank = np.zeros(len(node), np.int64), np.full(len(node), 255, np.int64)
    band[inner] = bands[split]
    rank[inner] = (cuts[bands[split]] < values[split, np.newaxis]).sum(axis=1)
    leaves[~inner] = _numbers(tree["leaf_value"], float)[~node[~inner]]
    first = np.asarray(first_child, rank.dtype)
    return (first << 16 | rank << 8 | band).astype(np.int32), leaves


def _numbers(text: str, kind: type) -> np.ndarray:
    return np.array(text.split(), dtype=kind)


def probability_of(pixels: np.ndarray, trees: Trees) -> np.ndarray:
    """Return the probability of each pixel, ``(N,)`` float64; NaN counts as zero.

    Args:
        pixels: ``(N, bands)`` float32.
        trees: the model.
    """
    pixels = np.ascontiguousarray(pixels, np.float32)
    answer, run = np.empty(len(pixels)), _compiled()
    shares = [slice(first, first + SHARE) for first in range(0, len(pixels), SHARE)]

    def work(share: slice) -> None:
        run(pixels[share], trees.words, trees.leaves, trees.starts, trees.cuts, answer[share])

    with ThreadPoolExecutor(_cores()) as pool:  # compiled code lets other threads run
        for done in [pool.submit(work, share) for share in shares]:
            done.result()
    return answer


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@cache
def _compiled() -> Callable[..., None]:
    """Return :func:`_run`, compiled."""
    from unveil.compiled import compiled  # lazy: imports Numba

    return compiled(_run)


def _run(
    pixels: np.ndarray,
    words: np.ndarray,
    leaves: np.ndarray,
    starts: np.ndarray,
    cuts: np.ndarray,
    answer: np.ndarray,
) -> None:
    """Fill the answer for a share of the pixels; compiled, so plain loops."""
    ranks = np.zeros(BLOCK * MOST_BANDS, np.uint8)
    at = np.zeros(BLOCK, np.int32)
    total = np.zeros(BLOCK)
    for first in range(0, len(pixels), BLOCK):
        count = min(BLOCK, len(pixels) - first)
        for p in range(count):
            for band in range(pixels.shape[1]):
                value = 0.0
                if not math.isnan(pixels[first + p, band]):
                    value = np.float64(pixels[first + p, band])
                rank = 0
                for step in (128, 64, 32, 16, 8, 4, 2, 1):
                    rank += step * (cuts[band, rank + step - 1] < value)
                ranks[p * MOST_BANDS + band] = rank
        total[:] = 0.0
        for tree in range(len(starts) - 1):
            word_of = words[starts[tree] : starts[tree + 1]]
            leaf_of = leaves[starts[tree] : starts[tree + 1]]
            for group in range(0, count, TURNS):
                for p in range(group, group + TURNS):
                    at[p] = 0
                moved = 1
                while moved:
                    moved = 0
                    for p in range(group, group + TURNS):
                        word = word_of[np.uint32(at[p])]
                        seen = np.int32(ranks[np.uint32(p * MOST_BANDS + (word & 255))])
                        child = np.int32((word >> 16) + (seen > ((word >> 8) & 255)))
                        moved |= child ^ at[p]
                        at[p] = child
            for p in range(count):
                total[p] += leaf_of[at[p]]
        for p in range(count):
            answer[first + p] = 1.0 / (1.0 + math.exp(-total[p]))
