"""The backbones that come with the package: ``headstart-m``, the default, and ``headstart-s``, the faster one."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from headstart.backbones import store
from headstart.backbones.backbone import Backbone, InputOptions, check_taps
from headstart.errors import BackboneError, OptionError, untrusted
from headstart.files import read_json


@dataclass(frozen=True)
class Measured:
    """What was measured of a built-in backbone where it was made.

    ``accuracy`` is the number of correct validation images and of all of them, by data set; ``images_per_second`` how
    many photographs were read into features, decoding included, on two cores. ``how`` names the date, the head and the
    runtime.
    """

    accuracy: Mapping[str, tuple[int, int]]
    images_per_second: float
    how: str

    def to_dict(self) -> dict[str, Any]:
        """The figures as a JSON object."""
        accuracy = {name: {"correct": correct, "count": count} for name, (correct, count) in self.accuracy.items()}
        return {"accuracy": accuracy, "images_per_second": self.images_per_second, "how": self.how}


@dataclass(frozen=True)
class BuiltIn:
    """A built-in backbone without its graph.

    ``network`` names the architecture; ``size`` is the height and width of the input in pixels, ``bytes`` the size of
    the graph.
    """

    id: str
    network: str
    size: tuple[int, int]
    bytes: int
    licence: str
    sha256: str
    measured: Measured

    def to_dict(self) -> dict[str, Any]:
        """The backbone as a JSON object."""
        return {
            "id": self.id,
            "network": self.network,
            "size": list(self.size),
            "bytes": self.bytes,
            "licence": self.licence,
            "sha256": self.sha256,
            "measured": self.measured.to_dict(),
        }


def built_in(name: str) -> BuiltIn:
    """Return what ``backbone.json`` says of the built-in backbone ``name``. Raises BackboneError if it is damaged."""
    folder = _folder(name)
    with untrusted(f"{folder}", BackboneError):
        values = read_json(folder / store.DESCRIPTION, store.MAX_JSON_BYTES)
        measured = values["measured"]
        return BuiltIn(
            name,
            str(values["network"]),
            (int(values["preprocess"]["height"]), int(values["preprocess"]["width"])),
            (folder / store.GRAPH).stat().st_size,
            str(values["licence"]),
            str(values["sha256"]),
            Measured(
                {data: (int(row["correct"]), int(row["count"])) for data, row in measured["accuracy"].items()},
                float(measured["images_per_second"]),
                str(measured["how"]),
            ),
        )


def load_builtin(name: str, rest: str, options: InputOptions, taps: tuple[str, ...]) -> Backbone:
    """Load the built-in backbone ``name``. Its preprocessing and taps are fixed.

    Raises OptionError for any options, BackboneError for unknown taps or a damaged installation.
    """
    if rest or options != InputOptions():
        raise OptionError(f"{name} comes with its own weights, input size and scaling; leave those options out.")
    folder = _folder(name)
    if not folder.exists():
        raise BackboneError(f"This build has no {name}; give another backbone with --backbone onnx:FILE.")
    backbone = store.read(folder, name)
    if backbone is None:
        raise BackboneError(f"The built-in backbone {name} is damaged (its sha256 differs); install headstart again.")
    check_taps(backbone, taps, name)
    return backbone


def _folder(name: str) -> Path:
    return Path(str(resources.files("headstart.backbones") / name))
