"""The models of a server: loaded beside each other, and loaded anew where a folder is replaced."""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headstart.errors import HeadstartError, ImageError, OptionError, one_line
from headstart.features import Compute
from headstart.model.folder import read_model
from headstart.model.metadata import MULTI_LABEL
from headstart.serve.drift import Drift
from headstart.serve.engine import Answer, Engine, Pools
from headstart.stats.conformal import NOT_MEASURED

LOOK_SECONDS = 1.0  # between two looks at the folders
Identity = tuple[tuple[str, int, int, int], ...]
log = logging.getLogger("headstart.serve")


class NotReadyError(HeadstartError):
    """A model has not proven yet, or could not prove, that it answers as it should."""


@dataclass
class Served:
    """A model folder that is served: its engine once it is loaded, or why it is not.

    ``images`` counts answers, ``rejected`` those rejected as none of the classes, ``unread`` images that could not be
    read, ``reloads`` how often the folder was loaded anew, ``failures`` how often that failed.
    """

    name: str
    folder: Path
    engine: Engine | None = None
    error: str = ""
    drift: Drift | None = None
    images: int = 0
    rejected: int = 0
    unread: int = 0
    reloads: int = 0
    failures: int = 0
    _identity: Identity = field(default=(), repr=False)

    @property
    def ready(self) -> Engine:
        """The engine. Raises NotReadyError."""
        if self.engine is None:
            raise NotReadyError(f"Model {self.name} is not ready: {self.error or 'it is being loaded'}")
        return self.engine

    async def answer(self, engine: Engine, image: bytes, *, explain: bool = False) -> Answer:
        """Answer an image by ``engine``, ``ready`` as the request began, and count it.

        Raises ImageError, BackboneError.
        """
        try:
            answer = await engine.answer(image, explain=explain)
        except ImageError:
            self.unread += 1
            raise
        self.count(answer, engine)
        return answer

    def count(self, answer: Answer, engine: Engine) -> None:
        """Count an answer of ``engine``."""
        rejected = answer.predictions.is_rejected
        self.images += 1
        self.rejected += bool(rejected is not None and rejected[0])
        if rejected is not None and self.drift is not None and engine is self.engine:
            self.drift.add(rejected)

    def to_dict(self) -> dict[str, Any]:
        """Return what the page and ``/models`` say of the model."""
        values: dict[str, Any] = {"name": self.name, "ready": self.engine is not None, "error": self.error}
        if self.engine is None:
            return values
        model, thresholds = self.engine.model, self.engine.model.thresholds
        if model.label_thresholds is not None:
            values |= {"problem_type": MULTI_LABEL, "label_thresholds": model.label_thresholds.to_dict()}
        if not thresholds.is_measured:
            values["note"] = NOT_MEASURED
        return values | {
            "sha256": model.sha256,
            "version": model.run.get("version"),
            "classes": list(model.classes),
            "coverage": thresholds.coverage if thresholds.is_measured else None,
            "reject_rate": thresholds.false_alarms if thresholds.is_measured else None,
            "explains": self.engine.explainer is not None,
            "runtime": self.engine.verification.runtime.to_dict(),
            "drift": None if self.drift is None else self.drift.to_dict(),
        }


@dataclass
class Models:
    """All models of a server, by name; ``compute``, ``pools`` and ``max_batch`` are those of each."""

    served: Mapping[str, Served]
    compute: Compute
    pools: Pools
    max_batch: int

    @classmethod
    def of(cls, folders: Sequence[str | os.PathLike[str]], compute: Compute, max_batch: int) -> Models:
        """Name and read the folders, so that a damaged one is an error at once. Raises OptionError, ModelError."""
        served: dict[str, Served] = {}
        for folder in folders:
            path = Path(folder)
            name = model_name(path)
            if name in served:
                raise OptionError(f"{path} and {served[name].folder} are both named {name}; rename one of the folders.")
            read_model(path)
            served[name] = Served(name, path)
        return cls(served, compute, Pools.of(compute.threads), max_batch)

    @property
    def is_ready(self) -> bool:
        """Whether all models are."""
        return all(served.engine is not None for served in self.served.values())

    def get(self, name: str | None) -> Served | None:
        """Return a model by its name, or the only one."""
        if name is None:
            return next(iter(self.served.values())) if len(self.served) == 1 else None
        return self.served.get(name)

    @asynccontextmanager
    async def loaded(self) -> Any:
        """Load the models while the server runs, and look after their folders."""
        task = asyncio.create_task(self._look_after())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            self.pools.close()

    async def _look_after(self) -> None:
        """Load each model, and load it anew where its folder has changed and then stayed the same for a moment."""
        seen: dict[str, Identity] = {}
        while True:
            for name, served in self.served.items():
                now = folder_identity(served.folder)
                is_stable = now == seen.get(name, now)
                seen[name] = now
                if not now and served.engine is None:
                    served.error = f"{served.folder} cannot be read; put it back, or start the server again."
                if now and is_stable and now != served._identity:
                    await self._load(served, now)
            await asyncio.sleep(LOOK_SECONDS)

    async def _load(self, served: Served, identity: Identity) -> None:
        """Load a model; requests are answered by the one before until the new one has proven itself."""
        loop = asyncio.get_running_loop()
        served._identity = identity
        is_first = served.engine is None
        try:
            engine = await loop.run_in_executor(
                self.pools.load, Engine.load, served.folder, self.compute, self.pools, self.max_batch
            )
        except Exception as error:  # one that is not raised on purpose is a bug, and no reason to stop looking
            is_bug = not isinstance(error, (HeadstartError, OSError))
            served.error = one_line(error)
            served.failures += 1
            rest = "" if is_first else " The model before goes on answering."
            log.error("%s: %s%s", served.name, served.error, rest, exc_info=is_bug)
            return
        served.engine, served.error = engine, ""
        thresholds = engine.model.thresholds
        served.drift = Drift(thresholds.false_alarms) if thresholds.reject_threshold < float("inf") else None
        served.reloads += not is_first
        log.info("%s is ready (%s).", served.name, engine.model.sha256[:12])


def model_name(folder: Path) -> str:
    """Return the name under which a folder is served: that of the folder. Raises OptionError."""
    name = Path(os.path.abspath(folder)).name  # noqa: PTH100  # a link keeps its own name
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise OptionError(
            f"{name!r} cannot be the name of a served model, which is part of addresses; "
            "rename the folder with letters, digits, '.', '_' and '-'."
        )
    return name


def folder_identity(folder: Path) -> Identity:
    """Return what changes when a folder or one of its files is replaced; empty where it cannot be read."""
    try:
        return tuple(sorted(_entries(folder)))
    except OSError:
        return ()


def _entries(folder: Path) -> Iterator[tuple[str, int, int, int]]:
    for entry in os.scandir(folder):
        try:
            status = entry.stat()
        except OSError:  # a link to nothing: whether the model needs it is for ``read_model`` to say
            status = entry.stat(follow_symlinks=False)
        yield entry.name, status.st_ino, status.st_mtime_ns, status.st_size
