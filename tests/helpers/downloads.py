"""A small public dataset on a server that may misbehave."""

import hashlib
import io
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from headstart.data.download import download
from headstart.data.public_datasets import Archive, PublicDataset
from helpers.servers import FaultyServer


def zip_of(names: list[str]) -> bytes:
    """A zip archive of files of 60 kB that begin with their names."""
    stream = io.BytesIO()
    noise = np.random.default_rng(0).bytes(60_000)
    with zipfile.ZipFile(stream, "w") as archive:
        for name in names:
            archive.writestr(name, name.encode() + noise)
    return stream.getvalue()


GOOD = zip_of(["wrap/train/ants/1.jpg", "wrap/train/bees/2.jpg", "wrap/val/ants/3.jpg", "wrap/.DS_Store"])
EXPECTED = ["SOURCE.md", "train/ants/1.jpg", "train/bees/2.jpg", "val/ants/3.jpg"]


def datasets(server: FaultyServer, data: bytes = GOOD, **changes: object) -> dict[str, PublicDataset]:
    """The dataset "set", recorded as ``data`` on ``server``, with changes to its archive."""
    archive = Archive(server.url, len(data), hashlib.sha256(data).hexdigest(), root="wrap")
    return {"set": PublicDataset((replace(archive, **changes),), "CC BY 2.0", "https://example.org")}


def fetch(server: FaultyServer, tmp_path: Path, timeout: float = 0.3, **changes: object) -> dict[str, str]:
    """Download it to ``out/set``."""
    return download("set", tmp_path / "out" / "set", datasets=datasets(server, **changes), timeout=timeout)


def files(folder: Path) -> list[str]:
    """The relative paths of all files below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def assert_complete(tmp_path: Path) -> None:
    """The dataset is in ``out/set``, whole, and nothing else is beside it."""
    assert files(tmp_path / "out") == [f"set/{name}" for name in EXPECTED]
    content = (tmp_path / "out" / "set" / "train" / "ants" / "1.jpg").read_bytes()
    assert content.startswith(b"wrap/train/ants/1.jpg")
