"""Drift: do the images that are sent differ from those that the model learned from?

An image of a known class is rejected with probability ``false_alarms``: that is what the threshold promises for images
like the training images (``stats.conformal``). So the share that is rejected needs no labels to be tested.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from typing import Any

WINDOW = 1000  # images that are looked at together
# So small, since the window is tested again with every image: of 1,000 simulated streams of 100,000 images without
# drift, of which 5% are rejected, 1 ever alarms (113 with 1e-4). Where 10% are, 93% of windows alarm.
ALARM = 1e-6


class Drift:
    """A rolling test of how many of the last ``WINDOW`` images were rejected, against ``expected``.

    ``expected`` is the share promised. Images of one scene are no independent draws: where many come from one place, an
    alarm says that this place is another one.
    """

    def __init__(self, expected: float) -> None:
        self.expected = expected
        self._recent: deque[bool] = deque(maxlen=WINDOW)
        self._rejected = 0

    def add(self, rejected: Iterable[bool]) -> None:
        """Add images in their order."""
        for value in rejected:
            if len(self._recent) == WINDOW:
                self._rejected -= self._recent[0]
            self._recent.append(bool(value))
            self._rejected += bool(value)

    @property
    def p_value(self) -> float:
        """The probability of as many rejected images or more, if ``expected`` holds."""
        return binomial_tail(self._rejected, len(self._recent), self.expected)

    @property
    def is_alarm(self) -> bool:
        """Whether chance explains the rejected images no longer."""
        return self.p_value < ALARM

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        p_value = self.p_value
        return {
            "images": len(self._recent),
            "rejected": self._rejected,
            "expected": self.expected,
            "p_value": p_value,
            "is_alarm": p_value < ALARM,
        }


def binomial_tail(count: int, n: int, share: float) -> float:
    """Return the probability of ``count`` or more successes in ``n`` draws, each with probability ``share``.

    >>> round(binomial_tail(2, 2, 0.5), 12), binomial_tail(0, 10, 0.1)
    (0.25, 1.0)
    """
    if count <= 0:
        return 1.0
    if share <= 0:
        return 0.0
    log_n = math.lgamma(n + 1)
    terms = (
        log_n - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * math.log(share) + (n - k) * math.log1p(-share)
        for k in range(count, n + 1)
    )
    return min(1.0, math.fsum(math.exp(term) for term in terms))
