"""How well ``headstart compare`` ranks backbones and cuts: against held-out accuracy, beside LogME and k-NN.

python benchmarks/compare.py

The birds and insects networks are the ImageNet graph with other weights, batch norms folded in (same architecture).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from measure import Scratch, mobilenetv2, print_table, shared
from onnx import numpy_helper
from safetensors.numpy import load_file
from scipy.stats import kendalltau

from headstart import backbones, open_dataset
from headstart.compare.backbones import _average_directions
from headstart.features import FeatureCache, Features, embed
from headstart.heads.selection import HeadOptions, rank_candidates, rank_tap_sets, select_head
from headstart.heads.training_set import TrainingSet
from headstart.splits.groups import find_groups, nearest_neighbours

DATASETS = ("ants-bees", "horse-or-human")
NORMS = {"conv_pw": "bn1", "conv_dw": "bn2", "conv_pwl": "bn3"}
FIRST_BLOCK_NORMS = {"conv_dw": "bn1", "conv_pw": "bn2"}
STEM_AND_HEAD_NORMS = {"conv_stem": "bn1", "conv_head": "bn2"}
CONVOLUTIONS = 52  # of MobileNetV2, each with a bias
EPSILON = 1e-5  # of timm's batch norms; checked below against the graph that timm's own export folded


def norm_of(convolution: str) -> str:
    """Return the name of the batch norm behind a convolution, both as timm names them."""
    if convolution in STEM_AND_HEAD_NORMS:
        return STEM_AND_HEAD_NORMS[convolution]
    block, name = convolution.rsplit(".", 1)
    norms = FIRST_BLOCK_NORMS if block == "blocks.0.0" else NORMS
    return f"{block}.{norms[name]}"


def with_weights(graph: Path, weights: Path) -> onnx.ModelProto:
    """Return the graph with other weights of the same architecture, batch norms folded into the convolutions."""
    model = onnx.load(graph)
    state = {name: value.astype(np.float32) for name, value in load_file(weights).items()}
    replaced = set()
    for tensor in model.graph.initializer:
        match = re.fullmatch(r"(.*)\.weight(_bias)?", tensor.name)
        if not match or match[1] == "classifier":
            continue
        convolution, is_bias = match[1], match[2]
        norm = norm_of(convolution)
        scale = state[f"{norm}.weight"] / np.sqrt(state[f"{norm}.running_var"] + EPSILON)
        if is_bias:
            value = state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * scale
        else:
            value = state[f"{convolution}.weight"] * scale[:, None, None, None]
        assert list(value.shape) == list(tensor.dims), tensor.name
        tensor.CopyFrom(numpy_helper.from_array(value.astype(np.float32), tensor.name))
        replaced.add(tensor.name)
    assert len(replaced) == 2 * CONVOLUTIONS, len(replaced)
    for tensor in model.graph.initializer:
        if tensor.name in ("classifier.weight", "classifier.bias"):
            tensor.CopyFrom(numpy_helper.from_array(state[tensor.name], tensor.name))
    for dim in model.graph.output[0].type.tensor_type.shape.dim[1:]:
        dim.dim_value = len(state["classifier.bias"])
    del model.graph.value_info[:]
    return model


def check_surgery(graph: Path, weights: Path) -> None:
    """Check that the graph with its own weights is the graph as it was."""
    expected = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(graph).graph.initializer}
    for tensor in with_weights(graph, weights).graph.initializer:
        np.testing.assert_allclose(numpy_helper.to_array(tensor), expected[tensor.name], rtol=2e-2, atol=2e-2)


def write_networks(folder: Path) -> dict[str, str]:
    """Write the graphs that are not there yet; return the ids of all backbones by name."""
    weights = shared() / "weights"
    graph = weights / "mobilenetv2-imagenet.onnx"
    check_surgery(graph, weights / "mobilenetv2-imagenet.safetensors")
    ids = {"headstart-s": "headstart-s", "imagenet": mobilenetv2()}
    for name in ("bird", "insect"):
        path = folder / f"mobilenetv2-inat-{name}.onnx"
        path.write_bytes(with_weights(graph, weights / f"mobilenetv2-inat-{name}.safetensors").SerializeToString())
        ids[name] = f"onnx:{path}"
    return ids


def logme(x: np.ndarray, labels: np.ndarray) -> float:
    """LogME (You et al. 2021, algorithm 2): the evidence of a Bayesian linear model for each class, per image."""
    x = x.astype(np.float64)
    u, s, _ = np.linalg.svd(x, full_matrices=False)
    squares, (n, d) = s**2, x.shape
    classes = np.unique(labels)
    total = 0.0
    for label in classes:
        y = (labels == label).astype(np.float64)
        z2 = (u.T @ y) ** 2
        unexplained = max(float(y @ y - z2.sum()), 0.0)
        alpha = beta = 1.0
        for _ in range(100):
            gamma = float((squares / (squares + alpha / beta)).sum())
            m2 = float((squares * z2 / (squares + alpha / beta) ** 2).sum())
            residual = float((z2 / (1 + squares * beta / alpha) ** 2).sum()) + unexplained
            new_alpha, new_beta = gamma / (m2 + 1e-12), (n - gamma) / (residual + 1e-12)
            has_converged = abs(new_alpha / new_beta - alpha / beta) <= 1e-3 * alpha / beta
            alpha, beta = new_alpha, new_beta
            if has_converged:
                break
        evidence = n * np.log(beta) + d * np.log(alpha) - np.log(alpha + beta * squares).sum()
        evidence -= (d - len(squares)) * np.log(alpha) + beta * residual + alpha * m2 + n * np.log(2 * np.pi)
        total += evidence / (2 * n)
    return total / len(classes)


def knn(x: np.ndarray, labels: np.ndarray, groups: np.ndarray, neighbours: int = 5) -> float:
    """Return the accuracy of the vote of the nearest images of other groups, by centred cosine similarity."""
    indices, _ = nearest_neighbours(x, groups, neighbours)
    votes = (labels[indices] == labels[:, None]).mean(axis=1)
    return float((votes > 0.5).mean())


def tau(scores: np.ndarray, is_correct: np.ndarray) -> float:
    """Return Kendall's tau-b of scores [c] with the accuracy of predictions [c, n]."""
    return float(kendalltau(scores, is_correct.mean(axis=1)).statistic)


def tau_with_interval(scores: np.ndarray, is_correct: np.ndarray, resamples: int = 1000) -> str:
    """Return ``tau`` with its 95% interval from resampling both candidates and images."""
    generator = np.random.default_rng(0)
    draws = []
    for _ in range(resamples):
        candidates = generator.integers(0, len(scores), len(scores))
        images = generator.integers(0, is_correct.shape[1], is_correct.shape[1])
        draws.append(tau(scores[candidates], is_correct[candidates][:, images]))
    low, high = np.nanpercentile(draws, [2.5, 97.5])
    return f"{tau(scores, is_correct):.2f} [{low:.2f}, {high:.2f}]"


@dataclass(frozen=True)
class Contestants:
    """The features of a dataset by backbone, the same images for all.

    ``labels`` [n] are those of all images, ``train`` [m] the rows of the training images.
    """

    data: str
    features: dict[str, Features]
    labels: np.ndarray
    train: np.ndarray

    @property
    def train_labels(self) -> np.ndarray:
        """The labels [m] of the training images."""
        return self.labels[self.train]

    def train_values(self, name: str) -> dict[str, np.ndarray]:
        """Return a backbone's vectors of the training images by tap."""
        return {tap: vectors[self.train] for tap, vectors in self.features[name].values.items()}

    def find_groups(self, vectors: np.ndarray) -> np.ndarray:
        """Return the groups [m] of the training images, with ``vectors`` [m, d] to find scenes by."""
        first = next(iter(self.features.values()))
        hashes, tiny_images = first.content_hashes[self.train], first.tiny_images[self.train]
        return find_groups(hashes, tiny_images, vectors, self.train_labels).index

    def average_directions(self) -> np.ndarray:
        """Return vectors of the training images by which ``headstart compare`` finds scenes."""
        train_features = [replace(each, values=self.train_values(name)) for name, each in self.features.items()]
        return _average_directions(train_features)


def read(data: str, ids: Mapping[str, str], cache: FeatureCache) -> Contestants:
    """Compute the features of a dataset by every backbone."""
    dataset = open_dataset(shared() / "data" / data)
    features = {name: embed(dataset, backbones.load(backbone), cache=cache) for name, backbone in ids.items()}
    first = next(iter(features.values()))
    assert all(np.array_equal(each.index, first.index) for each in features.values())
    items = [dataset.items[i] for i in first.index]
    labels = np.array([dataset.classes.index(str(item.label)) for item in items])
    train = np.flatnonzero([item.split == "train" for item in items])
    return Contestants(data, features, labels, train)


def evaluate_cuts(contestants: Contestants, groups: np.ndarray) -> tuple[list[dict[str, object]], np.ndarray]:
    """Return a row for each tap of each backbone, and which predictions [taps, images] of its head are correct.

    The images are those that are not trained on.
    """
    labels = contestants.train_labels
    is_held_out = np.ones(len(contestants.labels), bool)
    is_held_out[contestants.train] = False
    rows, is_correct = [], []
    for name, features in contestants.features.items():
        values = contestants.train_values(name)
        training_set = TrainingSet.of(values, labels, groups)
        ranked = rank_tap_sets(training_set)
        for tap in values:
            head = select_head(training_set, HeadOptions(cut=tap)).head
            held_out = np.asarray(features.values[tap][is_held_out], np.float32)
            is_correct.append(head.scores(held_out).argmax(axis=1) == contestants.labels[is_held_out])
            rows.append(
                {
                    "dataset": contestants.data,
                    "backbone": name,
                    "cut": tap,
                    "log-loss": ranked[tap,].candidate.log_loss,
                    "LogME": logme(values[tap], labels),
                    "k-NN": knn(values[tap], labels, groups),
                    "held-out accuracy": float(is_correct[-1].mean()),
                }
            )
    return rows, np.stack(is_correct)


def rank_correlations(data: str, rows: list[dict[str, object]], is_correct: np.ndarray) -> list[dict[str, object]]:
    """Return how the scores agree with held-out accuracy, over all cuts and over the backbones at their deepest."""
    scores = {key: np.array([row[key] for row in rows]) for key in ("log-loss", "LogME", "k-NN")}
    scores["log-loss"] = -scores["log-loss"]
    deepest = np.array([row["cut"] == "features" for row in rows])
    of_all = {key: tau_with_interval(values, is_correct) for key, values in scores.items()}
    of_deepest = {key: f"{tau(values[deepest], is_correct[deepest]):.2f}" for key, values in scores.items()}
    return [
        {"dataset": data, "candidates": f"{len(rows)} cuts", **of_all},
        {"dataset": data, "candidates": f"{deepest.sum()} backbones at their deepest", **of_deepest},
    ]


def losses_by_grouping(contestants: Contestants, average_groups: np.ndarray) -> list[dict[str, object]]:
    """Return the log-loss of each backbone at its deepest tap, with the groups that each backbone finds."""
    groupings = {"all on average": average_groups}
    for name in contestants.features:
        groupings[name] = contestants.find_groups(contestants.train_values(name)["features"])
    rows = []
    for grouped_by, groups in groupings.items():
        losses = {}
        for name in contestants.features:
            values = {"features": contestants.train_values(name)["features"]}
            ranked = rank_candidates(TrainingSet.of(values, contestants.train_labels, groups))
            losses[name] = ranked.average.candidate.log_loss
        count = len(np.unique(groups))
        rows.append({"dataset": contestants.data, "groups by": grouped_by, "groups": count, **losses})
    return rows


def main() -> None:
    with Scratch() as scratch:
        os.environ.setdefault("HEADSTART_CACHE", str(scratch.cache()))
        ids = write_networks(scratch.path)
        with FeatureCache() as cache:
            for data in DATASETS:
                contestants = read(data, ids, cache)
                groups = contestants.find_groups(contestants.average_directions())
                rows, is_correct = evaluate_cuts(contestants, groups)
                print_table(sorted(rows, key=lambda row: row["log-loss"]))
                print_table(rank_correlations(data, rows, is_correct))
                print_table(losses_by_grouping(contestants, groups))


if __name__ == "__main__":
    main()
