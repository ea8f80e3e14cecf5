"""What an answer is worth: all of it learned from the scores of groups that were left out.

temperature.py   one number that makes scores into probabilities
promises.py      the sets of classes that hold the true one, and the distance from which on none is believed
"""

from headstart.stats.conformal import ConformalThresholds, check_targets, fit_thresholds, group_quantile, groups_needed
from headstart.stats.temperature import fit_temperature, label_smoothing, log_losses

__all__ = [
    "ConformalThresholds",
    "check_targets",
    "fit_temperature",
    "fit_thresholds",
    "group_quantile",
    "groups_needed",
    "label_smoothing",
    "log_losses",
]  # fmt: skip
