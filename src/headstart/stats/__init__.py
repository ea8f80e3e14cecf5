"""What an answer is worth: all of it learned from the scores of groups that were left out.

temperature.py   one number that makes scores into probabilities
promises.py      the sets of classes that hold the true one, and the distance from which on none is believed
"""

from headstart.stats.conformal import Promises, check_promises, group_quantile, groups_needed, make_promises
from headstart.stats.temperature import fit_temperature, log_losses, smoothing

__all__ = [
    "Promises", "check_promises", "fit_temperature", "group_quantile", "groups_needed", "log_losses", "make_promises",
    "smoothing",
]  # fmt: skip
