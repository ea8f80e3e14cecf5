"""ONNX Runtime Web: two files of one release, known by their hashes, from the npm registry or a folder."""

from __future__ import annotations

import hashlib
import io
import tarfile
import urllib.error
import urllib.request
from pathlib import Path

from headstart.errors import DownloadError, OptionError
from headstart.files import write_atomic
from headstart.machine import cache_folder

VERSION = "1.30.0"
URL = f"https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-{VERSION}.tgz"
SHA256 = "d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71"
BYTES = 33_106_585
FILES = {
    "ort.wasm.bundle.min.mjs": "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
MAX_BYTES = 64 * 2**20  # of one of them
TIMEOUT = 60.0  # seconds without a byte


def runtime_files(folder: Path | None = None) -> dict[str, bytes]:
    """Return the files of the runtime by name: from ``folder``, else from the cache, where they are fetched to once.

    Raises OptionError for a folder without them, DownloadError.
    """
    if folder is not None:
        found = _read(folder)
        if found is None:
            names = " and ".join(FILES)
            raise OptionError(
                f"{folder} does not hold {names} of onnxruntime-web {VERSION} (folder dist of the package)."
            )
        return found
    cached = cache_folder() / f"onnxruntime-web-{VERSION}"
    found = _read(cached)
    if found is None:
        found = _download()
        cached.mkdir(parents=True, exist_ok=True)
        for name, data in found.items():
            write_atomic(cached / name, data)
    return found


def is_runtime_file(name: str, data: bytes) -> bool:
    """Return whether these are the bytes of a file of the runtime."""
    return hashlib.sha256(data).hexdigest() == FILES.get(name)


def _read(folder: Path) -> dict[str, bytes] | None:
    paths = [folder / name for name in FILES]
    if not all(path.is_file() and path.stat().st_size <= MAX_BYTES for path in paths):
        return None
    found = {path.name: path.read_bytes() for path in paths}
    return found if all(is_runtime_file(name, data) for name, data in found.items()) else None


def _download() -> dict[str, bytes]:
    mend = "give --runtime-dir, the folder dist of that package, if this machine has no access to the network"
    try:
        with urllib.request.urlopen(URL, timeout=TIMEOUT) as response:
            data = response.read(BYTES + 1)
    except (urllib.error.URLError, OSError) as error:
        raise DownloadError(f"onnxruntime-web {VERSION} cannot be fetched from {URL}: {error}; {mend}.") from None
    if hashlib.sha256(data).hexdigest() != SHA256:
        raise DownloadError(f"{URL} is not the file that was expected (its sha256 differs); {mend}.")
    found = {}
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
        for name in FILES:
            member = archive.extractfile(f"package/dist/{name}")
            assert member is not None
            found[name] = member.read(MAX_BYTES)
    return found
