"""Zip and tar archives of a folder."""

import tarfile
import zipfile
from pathlib import Path

TAR_MODES = {"tar": "w", "tar.gz": "w:gz", "tgz": "w:gz", "tar.bz2": "w:bz2", "tar.xz": "w:xz"}


def write_zip(folder: Path, target: Path, prefix: str = "") -> Path:
    """Write the files below ``folder`` to a zip archive, their names after ``prefix``."""
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path != target:
                archive.write(path, prefix + str(path.relative_to(folder)))
    return target


def write_archive(folder: Path, target: Path, kind: str) -> Path:
    """Write ``folder``, as the folder "wrapped", to an archive of a kind such as zip or tgz."""
    if kind == "zip":
        return write_zip(folder, target, "wrapped/")
    with tarfile.open(target, TAR_MODES[kind]) as archive:
        archive.add(folder, "wrapped")
    return target
