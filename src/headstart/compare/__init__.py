"""Comparisons: backbones and cuts on one dataset, and models on the same images.

backbones.py  rank backbones and cuts by leave-one-group-out log-loss, with speed and size
models.py     paired tests of finished models
model_diff.py what differs between two models, by what their folders say
"""

from headstart.compare.backbones import BackboneComparison, CompareOptions, compare_backbones, parse_entries
from headstart.compare.models import ModelComparison, compare_models

__all__ = [
    "BackboneComparison",
    "CompareOptions",
    "ModelComparison",
    "compare_backbones",
    "compare_models",
    "parse_entries",
]
