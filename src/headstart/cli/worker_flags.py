"""The options of commands whose work several workers can share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from headstart.cli.options import run_option

if TYPE_CHECKING:
    from headstart.classifier.embed_sharded import Where


@dataclass(frozen=True)
class WorkerFlags:
    """Who computes the features."""

    on: Annotated[
        str | None,
        run_option(
            metavar="processes|ray",
            help="Cut the data into shards, which --workers processes, or workers on Ray, compute.",
        ),
    ] = None
    address: Annotated[
        str | None,
        run_option(metavar="HOST:PORT|auto", help="Ray cluster; by default Ray is started here. With --on ray."),
    ] = None

    def where(self, data: str, workers: int | None) -> Where | None:
        """Return who computes the features of ``data``; None: this process alone. Raises OptionError."""
        from headstart.scale.addresses import has_braces

        if self.on is None and self.address is None and not has_braces(data):
            return None
        from headstart.classifier.embed_sharded import Where

        return Where(self.on or "processes", workers, self.address)
