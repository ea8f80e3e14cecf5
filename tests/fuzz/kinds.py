"""The kinds of input: how each is built, and how it is used through the functions that a user calls.

Using an input returns "answered" or "quarantined", or raises what the library raises. Where an answer is wrong it
raises AssertionError.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from fuzz import archives, caches, graphs, images, models, rows, tables
from fuzz.images import seeds
from headstart import Compute, FitOptions, Predictor, open_dataset
from headstart.backbones import load
from headstart.classifier.kept_rows import embedded_from
from headstart.classifier.parts import merge_parts
from headstart.data import Dataset, ReadOptions, from_images
from headstart.features import FeatureCache, Features, embed
from headstart.report import rewrite_report

MOST_ITEMS = 50
HEADSTART = (sys.executable, "-m", "headstart")


@dataclass(frozen=True)
class Kind:
    """``build(rng, folder, mutations)`` writes an input and returns its path; ``command`` is one that reads it."""

    build: Callable[[random.Random, Path, int], Path]
    use: Callable[[Path, Compute], str]
    command: Callable[[Path], list[str]]


def prepare(folder: Path) -> None:
    """Write what the kinds start from: photographs, a model of them with its report, and a cache of their features.

    Beside it are features of images with several labels.
    """
    from helpers.labels import write_labelled
    from helpers.photos import write_photos

    from headstart import fit_dataset
    from headstart.classifier.embed_folder import embed_to_folder
    from headstart.model.folder import write_model
    from headstart.report import write_report

    photos = write_photos(folder / "photos", 8)
    options = FitOptions(
        "headstart-s",
        cache=False,
        compute=Compute("onnxruntime"),
        class_weight={"disc": 2.0, "stripes": 1.0},
        thresholds={"stripes": 0.6},
    )
    result = fit_dataset(open_dataset(photos), options)
    write_model(result.model, folder / "model", [("notes.txt", "not an image")])
    write_report(result, folder / "model")
    embed_to_folder(open_dataset(photos), folder / "rows", options)
    table = folder / "labelled" / "labels.csv"
    rows = write_labelled(table.parent, 8)
    table.write_text("\n".join(["path,labels,split", *rows, "train_000.png,?disc;square,train"]), "utf-8")
    several = FitOptions("headstart-s", cache=False, compute=Compute("onnxruntime"))
    embed_to_folder(open_dataset(table, ReadOptions(multi_label=True)), folder / "label_rows", several)
    with FeatureCache(folder / "features") as cache:
        features = embed(open_dataset(photos), load("headstart-s"), Compute("onnxruntime"), cache=cache)
    np.savez(folder / "expected.npz", **features.values)


def kinds(prepared: Path) -> dict[str, Kind]:
    """Return all kinds by name; ``prepared`` is the folder that ``prepare`` wrote."""
    options = ["--backbone", "headstart-s", "--runtime", "onnxruntime", "--json"]
    check = [*HEADSTART, "check", "--no-cache", *options]
    photo = str(prepared / "photos" / "disc" / "000.jpg")
    cached = [*HEADSTART, "check", str(prepared / "photos"), *options]
    return {
        "images": Kind(_image_folder, _use_data, lambda path: [*check, str(path)]),
        "archives": Kind(archives.write, _use_data, lambda path: [*check, str(path)]),
        "tables": Kind(tables.write, _use_data, lambda path: [*check, str(path)]),
        "models": Kind(
            partial(_with, models.write, prepared / "model"),
            partial(_use_model, photo),
            lambda path: [*HEADSTART, "predict", str(path), photo, "--json"],
        ),
        "rows": Kind(
            partial(_with, rows.write, prepared / "rows"),
            _use_rows,
            lambda path: [*HEADSTART, "merge", str(path), "-o", str(path.parent / "new"), "--json"],
        ),
        "label_rows": Kind(
            partial(_with, rows.write, prepared / "label_rows"),
            _use_rows,
            lambda path: [*HEADSTART, "merge", str(path), "-o", str(path.parent / "new"), "--json"],
        ),
        "backbones": Kind(graphs.write, _use_graph, lambda path: [*HEADSTART, "backbones", "import", f"onnx:{path}"]),
        "cache": Kind(
            partial(_with, caches.write, prepared / "features"), partial(_use_cache, prepared), lambda path: cached
        ),
    }


def _with(write: Callable[..., Path], seed: Path, rng: random.Random, folder: Path, mutations: int) -> Path:
    return write(rng, folder, mutations, seed)


def _image_folder(rng: random.Random, folder: Path, mutations: int) -> Path:
    """Write one valid image, and another one."""
    name, data = images.image(rng, mutations)
    for path, content in (("a/valid.jpg", dict(seeds())["a.jpg"]), (f"b/{name}", data)):
        (folder / "data" / path).parent.mkdir(parents=True)
        (folder / "data" / path).write_bytes(content)
    return folder / "data"


def _use_data(path: Path, compute: Compute) -> str:
    dataset = open_dataset(path)
    dataset = dataset.select(range(min(len(dataset), MOST_ITEMS)))  # thousands of valid images take long by right
    features = _embed(dataset, "headstart-s", compute)
    left_out = [*dataset.quarantined, *dataset.skipped, *features.quarantined]
    assert not any("valid.jpg" in one.path for one in left_out), "a valid image was left out"
    assert all(len(one.reason) < 1_000 and "\n" not in one.reason for one in left_out), "a reason is no short line"
    return "quarantined" if left_out else "answered"


def _embed(dataset: Dataset, backbone: str, compute: Compute, cache: FeatureCache | None = None) -> Features:
    features = embed(dataset, load(backbone), compute, cache=cache)
    assert len(features.index) + len(features.quarantined) == len(dataset), "an image is missing"
    for tap, values in features.values.items():
        assert np.isfinite(values).all(), f"values of {tap} are not finite"
    return features


def _use_model(photo: str, path: Path, compute: Compute) -> str:
    predictor = Predictor.load(path, compute)
    probabilities = predictor.predict([photo]).probabilities
    assert abs(probabilities.sum() - 1) < 1e-6, f"probabilities are {probabilities}"
    predictor.verify()
    rewrite_report(path, path.parent / "page.html")
    return "answered"


def _use_rows(path: Path, compute: Compute) -> str:
    embedded = embedded_from(merge_parts([path]), FitOptions(compute=compute))
    for tap, values in embedded.features.values.items():
        assert np.isfinite(values[:]).all(), f"values of {tap} are not finite"
        assert len(values) == len(embedded.features.index), "a row is missing"
    return "quarantined" if embedded.features.quarantined else "answered"


def _use_graph(path: Path, compute: Compute) -> str:
    pixels = [np.full((40, 40, 3), value, np.uint8) for value in (0, 99)]
    features = _embed(from_images(pixels), f"onnx:{path}", compute)
    return "quarantined" if features.quarantined else "answered"


def _use_cache(prepared: Path, path: Path, compute: Compute) -> str:
    dataset, other = open_dataset(prepared / "photos"), path.parent / "other.sqlite"
    before = other.read_bytes()
    with np.load(prepared / "expected.npz") as expected:
        for _ in range(2):
            with FeatureCache(path) as cache:
                features = _embed(dataset, "headstart-s", Compute("onnxruntime"), cache)
            for tap, values in features.values.items():
                assert np.allclose(values, expected[tap], atol=0.01, rtol=0.01), "the cache gave other features"
    assert other.read_bytes() == before, "the database of another program was changed"
    return "answered"
