"""Comparisons: backbones and cuts on one dataset, and models on the same images.

backbones.py  rank backbones, cuts and variants by leave-one-group-out log-loss, with speed and size
scores.py     how well heads on one backbone predict images of a group left out, of classes and of several labels
entries.py    what is compared: ids of backbones, and their files of weights
variants.py   what is compared: values of a head's options
models.py     paired tests of finished models
model_diff.py what differs between two models, by what their folders say
"""

from headstart.compare.backbones import BackboneComparison, CompareOptions, compare_backbones
from headstart.compare.entries import parse_entries
from headstart.compare.models import ModelComparison, compare_models
from headstart.compare.variants import Variant, make_variants

__all__ = [
    "BackboneComparison",
    "CompareOptions",
    "ModelComparison",
    "Variant",
    "compare_backbones",
    "compare_models",
    "make_variants",
    "parse_entries",
]
