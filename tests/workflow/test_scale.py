"""The graph of a thousand scenes and twelve models is planned in seconds."""

from __future__ import annotations

from benchmarks.scale import dry_run, write_patches


def test_a_thousand_small_scenes_are_planned_in_seconds(tmp_path):
    write_patches(tmp_path, 1000)
    _, cpu, mib, output = dry_run(tmp_path)
    # 20 shards of 3 jobs, and 2 more for each network and for the methods; 5 for all.
    assert f"total {20 * (3 + 2 * 5) + 5}" in " ".join(output.split())
    assert cpu < 8, "seconds of one core: the machine may be busy"
    assert mib < 2048
