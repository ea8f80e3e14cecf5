"""What ``model.onnx`` says of itself: classes, preprocessing, thresholds and versions, as texts by key.

They are ``metadata_props`` of the ONNX file, and ``rt_info`` of an OpenVINO model made of it. The keys that begin with
``model_info`` are those that Intel's Model API reads (open-edge-platform/model_api, 0.4); the key ``headstart`` holds
everything as JSON, with the names of the classes as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from headstart import __version__
from headstart.files import escape_name, json_text
from headstart.images.preprocess import Preprocess
from headstart.stats.conformal import ConformalThresholds
from headstart.stats.decision import DecisionRule
from headstart.stats.label_thresholds import LabelThresholds

KEY = "headstart"
MODEL_INFO = "model_info "  # Model API's keys are paths, whose parts a blank separates
FORMAT = 1
MULTI_LABEL = "multi_label_classification"  # Hugging Face's name of the problem
RESIZE_TYPES = {"shortest": "crop", "squash": "standard"}  # the nearest that Model API has


def graph_metadata(
    classes: Sequence[str],
    preprocess: Preprocess,
    thresholds: ConformalThresholds,
    rule: DecisionRule | None = None,
    label_thresholds: LabelThresholds | None = None,
) -> dict[str, str]:
    """Return the texts by key that say what the outputs of a model mean and how its images are prepared."""
    own: dict[str, Any] = {
        "format": FORMAT,
        "version": __version__,
        "classes": list(classes),
        "preprocess": preprocess.to_dict(),
        **thresholds.to_dict(),
    }
    if rule is not None:
        own["decision"] = rule.to_dict()
    if label_thresholds is not None:
        own |= {"problem_type": MULTI_LABEL, "label_thresholds": label_thresholds.to_dict()}
        return {KEY: json_text(own)}
    return {KEY: json_text(own), **model_api_texts(classes, preprocess)}


def model_api_texts(
    classes: Sequence[str], preprocess: Preprocess, label_thresholds: LabelThresholds | None = None
) -> dict[str, str]:
    """Return the texts by key that Intel's Model API reads.

    Of several labels its first output must be the scores before the sigmoid, which Model API takes itself. It knows one
    threshold for all labels: the lowest, above which are all that hold.
    """
    info = {
        "model_type": "Classification",
        "labels": " ".join(labels_without_blanks(classes)),
        "resize_type": RESIZE_TYPES[preprocess.resize],
        "output_raw_scores": "True",
    }
    if label_thresholds is not None:
        info |= {"multilabel": "True", "confidence_threshold": f"{min(label_thresholds.thresholds):.9g}"}
    return {MODEL_INFO + name: value for name, value in info.items()}


def labels_without_blanks(classes: Sequence[str]) -> list[str]:
    """Return names that differ and have no blanks, since Model API takes a blank for the end of a name.

    >>> labels_without_blanks(["golden retriever", "golden_retriever", "cat"])
    ['golden_retriever_', 'golden_retriever', 'cat']
    """
    kept = {name for name in map(escape_name, classes) if name.split() == [name]}
    taken, labels = set(kept), []
    for name in map(escape_name, classes):
        label = name
        if name not in kept:
            label = "_".join(name.split()) or "_"
            while label in taken:
                label += "_"
            taken.add(label)
        labels.append(label)
    return labels


def model_info(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return the entries for Model API, by their names without ``model_info``."""
    return {key.removeprefix(MODEL_INFO): value for key, value in metadata.items() if key.startswith(MODEL_INFO)}
