"""``headstart-s``: the backbone that comes with the package."""

from importlib import resources
from pathlib import Path

from headstart.backbones import store
from headstart.backbones.backbone import Backbone, InputOptions, check_taps
from headstart.errors import BackboneError, OptionError


def load_builtin(rest: str, options: InputOptions, taps: tuple[str, ...]) -> Backbone:
    """Load the built-in backbone. Its preprocessing and taps are fixed.

    Raises OptionError for any options, BackboneError for unknown taps or a damaged installation.
    """
    if rest or options != InputOptions():
        raise OptionError("headstart-s comes with its own weights, input size and scaling; leave those options out.")
    folder = Path(str(resources.files("headstart.backbones") / "headstart-s"))
    if not folder.exists():
        raise BackboneError("This build has no built-in backbone; give one with --backbone onnx:FILE.")
    backbone = store.read(folder, "headstart-s")
    if backbone is None:
        raise BackboneError("The built-in backbone is damaged (its sha256 differs); install headstart again.")
    check_taps(backbone, taps)
    return backbone
