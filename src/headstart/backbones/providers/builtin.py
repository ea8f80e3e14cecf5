"""``headstart-s``: the backbone that comes with the package."""

from importlib import resources
from pathlib import Path

from headstart.backbones.backbone import Backbone, InputOptions, provider
from headstart.backbones.providers.onnx_file import read_stored
from headstart.errors import BackboneError, OptionError


@provider("headstart-s")
def load_builtin(rest: str, options: InputOptions, taps: tuple[str, ...]) -> Backbone:
    """The built-in backbone. It has its own preprocessing and taps, so options are refused."""
    if rest or options != InputOptions():
        raise OptionError("headstart-s comes with its own weights, input size and scaling; leave those options out.")
    folder = Path(str(resources.files("headstart.backbones") / "headstart-s"))
    if not folder.exists():
        raise BackboneError("This build has no built-in backbone yet; give one with --backbone onnx:FILE.")
    found = read_stored(folder, "headstart-s")
    if found is None:
        raise BackboneError("The built-in backbone is damaged (its sha256 differs); install headstart again.")
    known = [tap.name for tap in found.taps]
    for tap in taps:
        if tap not in known:
            raise BackboneError(f"Unknown cut {tap!r}; headstart-s has {', '.join(known)}.")
    return found
