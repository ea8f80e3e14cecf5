"""``--precision auto``: int8 where it pays, that is where it is faster here by more than the test costs, and no worse.

Whether it is no worse is measured on a fifth of the training images: a head is selected on the features of either
precision, and int8 is taken if the upper 95% bound of the increase in log-loss, by groups, is below ``MARGIN``.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import Backbone
from headstart.backbones.int8 import int8_version
from headstart.classifier.options import FitOptions
from headstart.data import Dataset
from headstart.errors import DataError, ImageError
from headstart.features import Compute, FeatureCache
from headstart.features.extractor import content_hash
from headstart.features.features import Extract
from headstart.features.runtime import images_per_second
from headstart.files import to_json, write_atomic
from headstart.heads.selection import HeadOptions, rank_candidates
from headstart.heads.training_set import TrainingSet
from headstart.machine import cache_folder, single_threaded_blas
from headstart.splits.split import split_features
from headstart.stats.paired import grouped_difference

MARGIN = 0.01  # nats: what int8 may cost at most
Z95_ONE_SIDED = 1.6448536269514722  # the 95% quantile of the standard normal distribution
SHARE = 5  # one of so many training images is part of the test
MIN_IMAGES = 2000  # of training images: of fewer, measuring the speeds would take what int8 saves
TRIAL_SECONDS = 4.0  # of the test beside its features: two networks loaded, two heads selected
MAX_GAIN = 4.0  # int8 multiplies four times as many numbers at once as fp32: what it can gain at most
MIN_GAIN = 1.2  # how many times as fast int8 must be: less is within the noise of a short measurement


@dataclass(frozen=True)
class PrecisionChoice:
    """Which precision "auto" took, and why.

    ``precision`` is "int8", or that of the runtime. ``speeds`` are images per second of the network in that and in
    int8. ``increase`` is the increase in log-loss by int8 and ``upper`` its one-sided 95% bound, in nats, on ``images``
    images of ``groups`` groups; None and 0 where that was not tested.
    """

    precision: str
    reason: str
    speeds: tuple[float, float]
    increase: float | None = None
    upper: float | None = None
    images: int = 0
    groups: int = 0

    @property
    def notes(self) -> tuple[str, ...]:
        """The line that the user sees where int8 was tested; else nothing was done that would need one."""
        return () if self.increase is None else (f"Features are computed in {self.precision}: {self.reason}.",)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self) | {"speeds": list(self.speeds)}


def is_worth_a_test(count: int, speed: float, int8_speed: float) -> bool:
    """Return whether int8 saves a fit of ``count`` images more time than the test takes; speeds in images a second.

    >>> is_worth_a_test(10_000, 200.0, 600.0), is_worth_a_test(1_000, 200.0, 600.0), is_worth_a_test(10_000, 200, 210)
    (True, False, False)
    """
    if int8_speed < MIN_GAIN * speed:
        return False
    tested = count / SHARE
    saved = (count - tested) * (1 / speed - 1 / int8_speed)
    return saved > tested / int8_speed + TRIAL_SECONDS


def decide(
    losses: NDArray[np.float64],
    int8_losses: NDArray[np.float64],
    groups: NDArray[np.integer],
    precision: str,
    speeds: tuple[float, float],
) -> PrecisionChoice:
    """Take int8 if its log-loss [n] is not inferior to that of ``precision`` on the same images, by ``groups`` [n]."""
    increase, error = grouped_difference(int8_losses, losses, groups)
    upper = increase + Z95_ONE_SIDED * error
    count = len(np.unique(groups))
    change = f"the log-loss changes by {increase:+.4f}, at most {upper:+.4f}"
    test = f"on {len(groups):,} images of {count:,} groups {change}"
    if upper < MARGIN:
        taken, reason = "int8", f"{speeds[1] / speeds[0]:.1f} times as fast here, and {test}"
    elif increase < MARGIN:
        taken, reason = precision, f"too few groups to tell whether int8 is as good: {test}, where {MARGIN} is allowed"
    else:
        taken, reason = precision, f"int8 is not as good: {test}"
    return PrecisionChoice(taken, reason, speeds, increase, upper, len(groups), count)


def choose_precision(
    images: Dataset, backbone: Backbone, options: FitOptions, extract: Extract, cache: FeatureCache | None
) -> tuple[Backbone, Compute, PrecisionChoice | None]:
    """Return the backbone and what runs it, in int8 where ``options.compute`` leaves it open and it pays.

    The choice is None where there was none: the precision is given, a GPU computes (in fp32 alone), there is no int8
    version, or there are too few images for any int8 version to save what it takes to measure and to test it.
    """
    compute = options.compute
    info = compute.resolve()
    may_change = compute.precision == "auto" and info.name != "onnxruntime-cuda"
    quantised = int8_version(backbone) if may_change else None
    training = images.split("train")
    if quantised is None or len(training) < MIN_IMAGES:
        return backbone, compute, None
    int8_compute, precision = replace(compute, precision="int8"), info.precision
    speed = _remembered_speed(backbone, compute)
    if not is_worth_a_test(len(images), speed, MAX_GAIN * speed):
        return backbone, compute, None
    speeds = (speed, _remembered_speed(quantised, int8_compute))
    if not is_worth_a_test(len(images), *speeds):
        reason = f"int8 is {speeds[1] / speeds[0]:.1f} times as fast here, too little for {len(images):,} images"
        return backbone, compute, PrecisionChoice(precision, reason, speeds)
    sample = draw_by_content(training, len(training) // SHARE, options.seed)
    pair = ((backbone, compute), (quantised, int8_compute))
    features = [extract(sample, *network, cache=cache).by_content(sample) for network in pair]
    head_options = options.head_options
    if head_options.kind == "mlp":  # stands for it: a head in closed form
        head_options = HeadOptions(head_options.cut, "ridge", seed=options.seed)
    losses = []
    try:
        split = split_features(features[0], sample, options.group_by, None, options.seed)
        for values in features:
            training_set = TrainingSet.of(values.vectors(split.train), split.labels, split.groups.index)
            with single_threaded_blas():
                losses.append(rank_candidates(training_set, head_options, workers=compute.threads).average.losses)
    except DataError as error:  # a sample of one class, or of one group
        return backbone, compute, PrecisionChoice(precision, f"int8 cannot be tested: {error}", speeds)
    choice = decide(losses[0], losses[1], split.groups.index, precision, speeds)
    return (*(pair[1] if choice.precision == "int8" else pair[0]), choice)


def draw_by_content(images: Dataset, count: int, seed: int) -> Dataset:
    """Draw ``count`` images by the hashes of their contents, so that neither order nor names decide which.

    Images that cannot be read are left out; the extraction names them.
    """
    drawn = []
    for i in range(len(images)):
        with suppress(ImageError):
            content = content_hash(images.read(i))
            drawn.append((hashlib.sha256(seed.to_bytes(8, "big") + content).digest(), i))
    return images.select([i for _, i in sorted(drawn)[:count]])


def _remembered_speed(backbone: Backbone, compute: Compute) -> float:
    """Return images per second of a backbone here, measured once, so that the same data give the same choice."""
    info = compute.resolve()
    file = Path("speeds") / f"{backbone.sha256}-{info.key}-{info.version}-{compute.threads}.json"
    with suppress(OSError, ValueError, TypeError, KeyError):
        rate = float(json.loads((cache_folder() / file).read_bytes()[:1000])["images_per_second"])
        if 0 < rate < 1e9:
            return rate
    size = (backbone.preprocess.height, backbone.preprocess.width)
    rate = images_per_second(backbone.graph, size, backbone.batch, compute)
    with suppress(OSError):
        path = cache_folder() / file
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, to_json({"images_per_second": rate}))
    return rate
