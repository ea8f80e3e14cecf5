"""Work for shards that tests can follow: a file of rows for each shard, and faults that are asked for."""

import json
import os
import signal
import time
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from headstart.errors import BackboneError, ImageError
from headstart.features.rows import Unread
from headstart.files import TEMPORARY, write_atomic
from headstart.images.decoding import decode_with_size
from headstart.scale.contract import Report, ShardResult
from headstart.scale.shards import Cut, Shard, cut
from helpers.photos import write_photos


@dataclass(frozen=True)
class HashRows:
    """Writes the path, label and SHA-256 of every image of a shard into FOLDER/rows.

    A shard whose hash begins with a key of ``faults`` meets that fault: "kill" (at each try), "kill once", "raise",
    "fatal", "wait for N" (until so many others are done). ``seconds`` is how long each image takes. Every start of a
    shard leaves a file in FOLDER/starts.
    """

    folder: str
    faults: tuple[tuple[str, str], ...] = ()
    seconds: float = 0.0

    def run(self, shard: Shard, report: Report) -> ShardResult:
        starts = Path(self.folder) / "starts"
        starts.mkdir(parents=True, exist_ok=True)
        (starts / f"{shard.sha256}-{os.getpid()}-{time.monotonic_ns()}").touch()
        fault = next((fault for key, fault in self.faults if shard.sha256.startswith(key)), "")
        rows, unread = [], []
        dataset = shard.open()
        for i, item in enumerate(dataset.items):
            time.sleep(self.seconds)
            if fault and i == len(dataset) // 2:
                self._meet(fault, shard)
            try:
                data = dataset.read(i)
                decode_with_size(data)
            except ImageError as error:
                unread.append(Unread(item.path, str(error)))
            else:
                rows.append([item.path, item.label, item.split, item.group, sha256(data).hexdigest()])
            report(i + 1)
        result = ShardResult(shard.sha256, len(rows), tuple(unread))
        self.rows(shard).parent.mkdir(parents=True, exist_ok=True)
        write_atomic(self.rows(shard), json.dumps([rows, [[one.path, one.reason] for one in unread]]))
        return result

    def finished(self, shard: Shard) -> ShardResult | None:
        if not self.rows(shard).exists():
            return None
        rows, unread = json.loads(self.rows(shard).read_text("utf-8"))
        return ShardResult(shard.sha256, len(rows), tuple(Unread(*one) for one in unread))

    def rows(self, shard: Shard) -> Path:
        """Return the file of rows of a shard."""
        return Path(self.folder) / "rows" / f"{shard.sha256}.json"

    def _meet(self, fault: str, shard: Shard) -> None:
        if fault == "fatal":
            raise BackboneError("The backbone cannot be run.")
        if fault == "raise":
            raise RuntimeError("a fault\nof ours")
        if fault.startswith("wait for"):
            while len(list(self.rows(shard).parent.glob("*.json"))) < int(fault.split()[-1]):
                time.sleep(0.01)
            return
        starts = list((Path(self.folder) / "starts").glob(f"{shard.sha256}-*"))
        if fault == "kill" or len(starts) == 1:
            os.kill(os.getpid(), signal.SIGKILL)


def rows_by_name(folder: Path) -> dict[str, bytes]:
    """Return the bytes of all files of rows by their names.

    A process that is killed may leave what it had begun to write, under another name.
    """
    written = sorted(path for path in (folder / "rows").iterdir() if not path.name.startswith(TEMPORARY))
    return {path.name: path.read_bytes() for path in written}


def cut_photos(folder: Path) -> Cut:
    """Write 40 images, one of which is damaged, and return them in shards of about 5."""
    photos = write_photos(folder, 20)
    (photos / "disc" / "003.jpg").write_bytes(b"\xff\xd8 cut off")
    return cut(photos, images=5)


def rows_of_one_process(pieces: Cut, folder: Path) -> dict[str, bytes]:
    """Return the files of rows that this process writes."""
    for shard in pieces.shards:
        HashRows(str(folder)).run(shard, lambda done: None)
    return rows_by_name(folder)
