"""The graph of a thousand scenes and twelve models is small; benchmarks/scale.py times it."""

from __future__ import annotations

from benchmarks.scale import dry_run, write_patches


def test_a_thousand_small_scenes_are_few_jobs_and_little_memory(tmp_path):
    write_patches(tmp_path, 1000)
    *_, mib, output = dry_run(tmp_path)
    # 20 shards of 3 jobs, and 2 more for methods, small networks and the large one; 6 for all.
    assert f"total {20 * (3 + 2 * 3) + 6}" in " ".join(output.split())
    assert mib < 2048
