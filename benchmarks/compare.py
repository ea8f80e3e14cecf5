"""How well `headstart compare` ranks backbones and cuts: against accuracy on held-out pictures, beside LogME and k-NN.

python benchmarks/compare.py

The birds and insects networks are the ImageNet graph with their weights folded in (same architecture).
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import onnx
from measure import Scratch, shared, table
from onnx import numpy_helper
from safetensors.numpy import load_file
from scipy.stats import kendalltau

from headstart import backbones
from headstart.compare.backbones import _average
from headstart.data import open_dataset
from headstart.features.cache import FeatureCache
from headstart.features.features import embed
from headstart.heads import judge, select
from headstart.splits.groups import find_groups, nearest_neighbours

SETS = ("horse-or-human", "ants-bees")
NORMS = {"conv_pw": "bn1", "conv_dw": "bn2", "conv_pwl": "bn3"}
EPSILON = 1e-5  # of timm's batch norms; checked below against the graph that timm's own export folded


def norm_of(conv: str) -> str:
    if conv in ("conv_stem", "conv_head"):
        return {"conv_stem": "bn1", "conv_head": "bn2"}[conv]
    block, name = conv.rsplit(".", 1)
    return f"{block}.{({'conv_dw': 'bn1', 'conv_pw': 'bn2'} if block == 'blocks.0.0' else NORMS)[name]}"


def transplanted(graph: Path, weights: Path) -> onnx.ModelProto:
    """The graph with other weights of the same architecture, batch norms folded into the convolutions."""
    model, state = onnx.load(graph), load_file(weights)
    state = {name: value.astype(np.float32) for name, value in state.items()}
    seen = set()
    for tensor in model.graph.initializer:
        found = re.fullmatch(r"(.*)\.weight(_bias)?", tensor.name)
        if not found or found[1] == "classifier":
            continue
        norm = norm_of(found[1])
        scale = state[f"{norm}.weight"] / np.sqrt(state[f"{norm}.running_var"] + EPSILON)
        if found[2]:
            value = state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * scale
        else:
            value = state[f"{found[1]}.weight"] * scale[:, None, None, None]
        assert list(value.shape) == list(tensor.dims), tensor.name
        tensor.CopyFrom(numpy_helper.from_array(value.astype(np.float32), tensor.name))
        seen.add(tensor.name)
    assert len(seen) == 2 * 52, len(seen)  # 52 convolutions, each with a bias
    for tensor in model.graph.initializer:
        if tensor.name in ("classifier.weight", "classifier.bias"):
            tensor.CopyFrom(numpy_helper.from_array(state[tensor.name], tensor.name))
    for dim in model.graph.output[0].type.tensor_type.shape.dim[1:]:
        dim.dim_value = len(state["classifier.bias"])
    del model.graph.value_info[:]
    return model


def networks(folder: Path) -> dict[str, str]:
    weights = shared() / "weights"
    graph = weights / "mobilenetv2-imagenet.onnx"
    kept = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(graph).graph.initializer}
    again = transplanted(graph, weights / "mobilenetv2-imagenet.safetensors")
    for tensor in again.graph.initializer:  # the surgery on the graph's own weights must change nothing
        np.testing.assert_allclose(numpy_helper.to_array(tensor), kept[tensor.name], rtol=2e-2, atol=2e-2)
    found = {"headstart-s": "headstart-s", "imagenet": f"onnx:{graph}"}
    for name in ("bird", "insect"):
        path = folder / f"mobilenetv2-inat-{name}.onnx"
        path.write_bytes(transplanted(graph, weights / f"mobilenetv2-inat-{name}.safetensors").SerializeToString())
        found[name] = f"onnx:{path}"
    return found


def logme(x: np.ndarray, labels: np.ndarray) -> float:
    """LogME (You et al. 2021, algorithm 2): the evidence of a Bayesian linear model a class, over pictures."""
    x = x.astype(np.float64)
    u, s, _ = np.linalg.svd(x, full_matrices=False)
    squares, (n, d), total = s**2, x.shape, 0.0
    for label in np.unique(labels):
        y = (labels == label).astype(np.float64)
        z2 = (u.T @ y) ** 2
        rest = max(float(y @ y - z2.sum()), 0.0)
        alpha = beta = 1.0
        for _ in range(100):
            gamma = float((squares / (squares + alpha / beta)).sum())
            m2 = float((squares * z2 / (squares + alpha / beta) ** 2).sum())
            residual = float((z2 / (1 + squares * beta / alpha) ** 2).sum()) + rest
            new_alpha, new_beta = gamma / (m2 + 1e-12), (n - gamma) / (residual + 1e-12)
            converged = abs(new_alpha / new_beta - alpha / beta) <= 1e-3 * alpha / beta
            alpha, beta = new_alpha, new_beta
            if converged:
                break
        evidence = n * np.log(beta) + d * np.log(alpha) - np.log(alpha + beta * squares).sum()
        evidence -= (d - len(squares)) * np.log(alpha) + beta * residual + alpha * m2 + n * np.log(2 * np.pi)
        total += evidence / (2 * n)
    return total / len(np.unique(labels))


def knn(x: np.ndarray, labels: np.ndarray, groups: np.ndarray, neighbours: int = 5) -> float:
    """Accuracy of the vote of the nearest pictures of other groups, by centred cosine."""
    places, _ = nearest_neighbours(x, groups, neighbours)
    votes = (labels[places] == labels[:, None]).mean(axis=1)
    return float((votes > 0.5).mean())


def tau(score: np.ndarray, right: np.ndarray, resamples: int = 1000) -> str:
    """Kendall's tau-b of scores [c] with accuracy of answers [c, n]; both candidates and pictures are resampled."""
    generator = np.random.default_rng(0)
    point = kendalltau(score, right.mean(axis=1)).statistic
    drawn = []
    for _ in range(resamples):
        some = generator.integers(0, len(score), len(score))
        pictures = generator.integers(0, right.shape[1], right.shape[1])
        drawn.append(kendalltau(score[some], right[some][:, pictures].mean(axis=1)).statistic)
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return f"{point:.2f} [{low:.2f}, {high:.2f}]"


def look_at(data: str, ids: dict[str, str], cache: FeatureCache) -> None:
    dataset = open_dataset(shared() / "data" / data)
    found = {name: embed(dataset, backbones.load(one), cache=cache) for name, one in ids.items()}
    first = next(iter(found.values()))
    assert all(np.array_equal(one.index, first.index) for one in found.values())
    items = [dataset.items[i] for i in first.index]
    labels = np.array([dataset.classes.index(str(item.label)) for item in items])
    train = np.array([item.split == "train" for item in items])
    rows = np.flatnonzero(train)
    own = labels[rows]

    def of(vectors: np.ndarray) -> np.ndarray:
        return find_groups(first.content_hashes[rows], first.tiny_images[rows], vectors, own).index

    held = [{tap: value[rows] for tap, value in one.values.items()} for one in found.values()]
    together = [type(one)(**{**vars(one), "values": values}) for one, values in zip(found.values(), held, strict=True)]
    groups = of(_average(together))
    table_rows, rights = [], []
    for (name, features), values in zip(found.items(), held, strict=True):
        judged = judge(values, own, groups)
        for tap in values:
            head = select(values, own, groups, cut=tap).head
            answers = head.scores(np.asarray(features.values[tap][~train], np.float32)).argmax(axis=1)
            rights.append(answers == labels[~train])
            table_rows.append(
                {"data": data, "backbone": name, "cut": tap, "log-loss": judged.best[tap,].log_loss,
                 "LogME": logme(values[tap], own), "k-NN": knn(values[tap], own, groups),
                 "held-out accuracy": float(rights[-1].mean())}
            )  # fmt: skip
    table(sorted(table_rows, key=lambda row: row["log-loss"]))
    right = np.stack(rights)
    ours, theirs, votes = (np.array([row[key] for row in table_rows]) for key in ("log-loss", "LogME", "k-NN"))
    deepest = np.array([row["cut"] == "features" for row in table_rows])
    table([
        {"data": data, "candidates": f"{len(right)} cuts", "log-loss": tau(-ours, right), "LogME": tau(theirs, right),
         "k-NN": tau(votes, right)},
        {"data": data, "candidates": f"{deepest.sum()} backbones at their deepest",
         **{key: f"{kendalltau(score[deepest], right[deepest].mean(axis=1)).statistic:.2f}"
            for key, score in (("log-loss", -ours), ("LogME", theirs), ("k-NN", votes))}},
    ])  # fmt: skip
    by = {"all on average": groups, **{n: of(h["features"]) for n, h in zip(found, held, strict=True)}}
    table([
        {"data": data, "groups by": who, "groups": len(np.unique(index)),
         **{n: judge({"features": h["features"]}, own, index).chosen.log_loss
            for n, h in zip(found, held, strict=True)}}
        for who, index in by.items()
    ])  # fmt: skip


if __name__ == "__main__":
    with Scratch() as scratch:
        os.environ.setdefault("HEADSTART_CACHE", str(scratch.cache()))
        ids = networks(scratch.path)
        with FeatureCache() as cache:
            for data in reversed(SETS):
                look_at(data, ids, cache)
