"""Fine-tuning: layers of the backbone are trained on, in PyTorch; the result is again a model that needs none.

options.py       FineTuning: all that can be said about it
schedule.py      the learning rate
choose.py        folds, interpolations, and whether fine-tuning is better than frozen
network.py       a backbone id as a trainable network with its taps, and back to an ONNX backbone
graph.py         the graph of headstart-s as a torch module, and back
keras_layers.py  a Keras network as a torch module of its layers
freeze.py        which layers are free, how fast each learns, and the proof that the others did not change
precision.py     what training calculates with
pictures.py      decode workers, augmentation, and the frozen path's own pixels
mixing.py        mixup and cutmix
loop.py          the one training loop
checkpoint.py    safetensors and JSON, written whole
board.py         curves as TensorBoard's event files
tune.py          all of it on a fitted classifier

What follows network.py, and it, imports torch (extra ``zoo``; Keras' networks need ``keras`` too).
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING

from headstart.errors import BackboneError, MissingExtraError
from headstart.finetune.options import FineTuning, parse

if TYPE_CHECKING:
    from headstart.classifier import ImageClassifier
    from headstart.finetune.run import Tuned

__all__ = ["FineTuning", "check_backbone", "fine_tune", "parse"]


def check_backbone(backbone: str) -> None:
    """Raises BackboneError for one that cannot be trained on, MissingExtraError where PyTorch is not installed."""
    kind = backbone.partition(":")[0]
    if kind not in ("timm", "keras", "headstart-s"):
        raise BackboneError(
            f"{backbone} cannot be fine-tuned, its layers are not trained on; use the same network as timm:NAME "
            "or keras:NAME with --weights FILE, or headstart-s."
        )
    if any(find_spec(name) is None for name in ("torch", "accelerate")):
        raise MissingExtraError("Fine-tuning needs PyTorch and Accelerate; run: pip install 'headstart[zoo]'")
    if kind == "keras" and find_spec("keras") is None:
        raise MissingExtraError("Keras is not installed; run: pip install 'headstart[zoo,keras]'")


def fine_tune(
    classifier: ImageClassifier, how: FineTuning | None = None, *, say: Callable[[str], None] | None = None
) -> Tuned:
    """Train layers of a classifier's backbone on, right after its ``fit``; it changes only if that makes it better.

    ``say`` gets a line an epoch, and what is decided. Raises BackboneError, DataError, OptionError, MissingExtraError.
    """
    check_backbone(classifier.backbone)
    from headstart.finetune.run import run

    return run(classifier, how or FineTuning(), say or (lambda _: None))
