"""What is compared: backbones, each with its published weights or with files of weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headstart.errors import OptionError


@dataclass(frozen=True)
class Entry:
    """A backbone to compare: its id, and a file of weights in place of the published ones."""

    backbone: str
    weights: str | None = None

    @property
    def label(self) -> str:
        """The name under which people see it."""
        return self.backbone if self.weights is None else f"{self.backbone} with {self.weights}"


def parse_entries(backbone_ids: Sequence[str], weights: Sequence[tuple[str, str]] = ()) -> tuple[Entry, ...]:
    """List what is compared: each backbone, one with several files of weights once with each. Raises OptionError.

    ``weights`` are pairs of an id and a file.

    >>> [entry.label for entry in parse_entries(["headstart-s", "timm:x"], [("timm:x", "a.pth"), ("timm:x", "b.pth")])]
    ['headstart-s', 'timm:x with a.pth', 'timm:x with b.pth']
    """
    for backbone_id, file in weights:
        if backbone_id not in backbone_ids:
            raise OptionError(
                f"Weights {file!r} are for {backbone_id!r}, which is not compared; expected an id that is."
            )
    entries: list[Entry] = []
    for backbone_id in backbone_ids:
        files = [file for other_id, file in weights if other_id == backbone_id]
        entries += [Entry(backbone_id, file) for file in files] or [Entry(backbone_id)]
    if not entries or len(set(entries)) < len(entries):
        raise OptionError("Expected the ids of the backbones to compare, each once: --backbones A,B,C.")
    return tuple(entries)
