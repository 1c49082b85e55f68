"""What travels between machines arrives whole, and nothing else arrives with it."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from unveil.config import SceneRow
from unveil.errors import InputError
from unveil.workflow import archives, plan


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Return a function that goes to the working directory of a machine."""

    def go_to(name: str) -> Path:
        (tmp_path / name).mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / name)
        return tmp_path / name

    return go_to


def test_files_lie_elsewhere_as_they_did_here(machine, tmp_path):
    here = machine("here")
    (here / "results/scenes/a").mkdir(parents=True)
    (here / "results/scenes/a/scene.json").write_text("{}")
    (here / "link.tif").symlink_to("results/scenes/a/scene.json")
    archive = tmp_path / "a.tar"
    archives.pack([archive], [Path("results/scenes/a/scene.json"), here / "link.tif"])
    there = machine("there")
    archives.unpack([archive], ["results", "link.tif"])
    archives.unpack([archive], ["results", "link.tif"])
    files = {p.relative_to(there).as_posix() for p in there.rglob("*") if p.is_file()}
    assert files == {"results/scenes/a/scene.json", "link.tif"}
    assert (there / "link.tif").read_text() == "{}" and not (there / "link.tif").is_symlink()


def test_nothing_is_packed_where_machines_share_a_file_system(machine):
    here = machine("here")
    archives.pack([], ["missing.tif"])
    assert not list(here.iterdir())


def test_a_file_outside_the_working_directory_is_not_sent(machine, tmp_path):
    machine("here")
    (tmp_path / "secret.tif").write_text("x")
    with pytest.raises(InputError, match=r"secret\.tif.*absolute path of a volume"):
        archives.pack([tmp_path / "a.tar"], ["../secret.tif"])
    assert not (tmp_path / "a.tar").exists()


@pytest.mark.parametrize("name", ["../out.tif", "/tmp/out.tif", "a/../../out.tif"])
def test_an_archive_writes_nothing_outside_the_working_directory(machine, tmp_path, name):
    machine("here")
    with tarfile.open(tmp_path / "bad.tar", "w") as tar:
        member = tarfile.TarInfo(name)
        member.size = 1
        tar.addfile(member, io.BytesIO(b"x"))
    with pytest.raises(InputError, match="no plain file of this project"):
        archives.unpack([tmp_path / "bad.tar"], ["."])
    assert not list(tmp_path.rglob("out.tif"))


@pytest.mark.parametrize(
    "name", ["Snakefile", "config/config.yaml", "results/scenes.py", ".snakemake/x", "results"]
)
def test_an_archive_writes_only_what_its_job_expects(machine, tmp_path, name):
    here = machine("here")
    with tarfile.open(tmp_path / "bad.tar", "w") as tar:
        for path in ("results/scenes/a.tif", name):
            member = tarfile.TarInfo(path)
            member.size = 1
            tar.addfile(member, io.BytesIO(b"x"))
    with pytest.raises(InputError, match=f"{name}' is not what this job expects"):
        archives.unpack([tmp_path / "bad.tar"], [here / "results/scenes", "weights.npz"])
    assert not (here / name).is_file()


def test_links_and_devices_of_an_archive_are_refused(machine, tmp_path):
    machine("here")
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
        with tarfile.open(tmp_path / "bad.tar", "w") as tar:
            member = tarfile.TarInfo("a")
            member.type, member.linkname = kind, "/etc/passwd"
            tar.addfile(member)
        with pytest.raises(InputError, match="no plain file of this project"):
            archives.unpack([tmp_path / "bad.tar"], ["."])


def test_a_cut_off_archive_leaves_no_file_half_written(machine, tmp_path):
    here = machine("here")
    (here / "large.tif").write_bytes(bytes(100_000))
    archives.pack([tmp_path / "a.tar"], ["large.tif"])
    (tmp_path / "a.tar").write_bytes((tmp_path / "a.tar").read_bytes()[:50_000])
    there = machine("there")
    with pytest.raises(InputError, match=r"a\.tar.*unexpected end of data"):
        archives.unpack([tmp_path / "a.tar"], ["large.tif"])
    assert not list(there.iterdir())


def test_a_plan_says_elsewhere_what_was_seen_here(machine):
    machine("here")
    row = SceneRow("a", "local", "place", "2020-01-01", "simulate", cloud_level=0.5)
    given = {"a": row}, {"a": 12}, {"weights.npz": 7}, "snakemake --cores 2"
    plan.write_plan(*given)
    assert plan.read_plan() == given
