"""The backbones that come with the package: ``headstart-s``, the fast one, and ``headstart-m``, the accurate one."""

from importlib import resources
from pathlib import Path

from headstart.backbones import store
from headstart.backbones.backbone import Backbone, InputOptions, check_taps
from headstart.errors import BackboneError, OptionError


def load_builtin(name: str, rest: str, options: InputOptions, taps: tuple[str, ...]) -> Backbone:
    """Load the built-in backbone ``name``. Its preprocessing and taps are fixed.

    Raises OptionError for any options, BackboneError for unknown taps or a damaged installation.
    """
    if rest or options != InputOptions():
        raise OptionError(f"{name} comes with its own weights, input size and scaling; leave those options out.")
    folder = Path(str(resources.files("headstart.backbones") / name))
    if not folder.exists():
        raise BackboneError(f"This build has no {name}; give another backbone with --backbone onnx:FILE.")
    backbone = store.read(folder, name)
    if backbone is None:
        raise BackboneError(f"The built-in backbone {name} is damaged (its sha256 differs); install headstart again.")
    check_taps(backbone, taps)
    return backbone
