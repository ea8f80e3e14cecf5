"""Groups: are planted bursts and augmented copies kept together, and how much of the rest is linked to something?

    python benchmarks/groups.py

The rule before (centred cosine 0.6) and the present one, in the same run, with both built-in backbones. *Planted*: of
some images three more are made, as frames of a burst (turned by 2 degrees at most, shifted by 3%, brightness changed by
a tenth, new noise) or as augmented copies (the views "light" and "lesson" of ``fit``). *Kept* is the share of pairs of
one image that are in one group, *others linked* the share of all images without planted ones that are in a group of
two or more. Of horse-or-human one image of each scene is taken, so that none of them belong together. *Shared places*:
parts of horse-or-human on backgrounds from ants-bees, each of which both classes have twice; *kept* are the pairs of
one class and background, *copies* re-encoded files. The scenes of horse-or-human are in its file names.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from measure import Scratch, print_table, shared
from numpy.typing import NDArray
from PIL import Image

from headstart import backbones, open_dataset
from headstart.features import Compute, Features, embed
from headstart.images.augment import AUGMENTATIONS, Augmentation, random_affine, warp
from headstart.splits.groups import Groups, duplicate_sets, find_groups, merge, to_groups
from headstart.splits.pairs import TILE, edges_above, mean_vector, spanning_forest, tiles, unit_vectors

BACKBONES = ("headstart-s", "headstart-m")
BURST = Augmentation(rotation=2, shift=0.03, zoom=0.02)
PLANTED = {"burst": BURST, "light": AUGMENTATIONS["light"], "lesson": AUGMENTATIONS["lesson"]}
Rows = NDArray[np.int64]


def rule_before(features: Features, labels: Rows) -> Groups:
    """Group by the rule before: centred cosine of the deepest tap from 0.6 on, whatever the class."""
    vectors, count = features.deepest, len(labels)
    mean = mean_vector(vectors, TILE)

    def edges():  # type: ignore[no-untyped-def]
        for first, second in tiles(count, TILE):
            cosine = unit_vectors(vectors[first], mean) @ unit_vectors(vectors[second], mean).T
            yield edges_above(cosine, 0.6, first, second)

    sets = duplicate_sets(features.content_hashes, features.tiny_images)
    merge(sets, spanning_forest(edges(), count), labels)
    return to_groups(sets.labels(), "cosine 0.6")


def present_rule(features: Features, labels: Rows) -> Groups:
    return find_groups(features.content_hashes, features.tiny_images, features.deepest, labels)


RULES: dict[str, Callable[[Features, Rows], Groups]] = {"before": rule_before, "present": present_rule}


def read(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        image.thumbnail((400, 400))
        return np.asarray(image.convert("RGB"))


def write(pixels: NDArray[np.uint8], path: Path, quality: int = 90) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(pixels)).save(path, quality=quality)


def further_view(pixels: NDArray[np.uint8], augmentation: Augmentation, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return a frame of a burst, or an augmented copy, mirrored every other time."""
    warped = warp(pixels, random_affine(augmentation, *pixels.shape[:2], rng))
    if augmentation is BURST:
        noisy = warped * rng.uniform(0.9, 1.1) + rng.normal(0, 3, warped.shape)
        return np.clip(noisy, 0, 255).astype(np.uint8)
    return warped[:, ::-1] if rng.random() < 0.5 else warped


def plant(files: Sequence[Path], augmentation: Augmentation, count: int, folder: Path) -> None:
    """Write all images of class folders, and three more of ``count`` of them; names say what belongs together."""
    rng = np.random.default_rng(0)
    chosen = set(rng.choice(len(files), count, replace=False).tolist())
    for i, file in enumerate(files):
        pixels = read(file)
        write(pixels, folder / file.parent.name / f"{i}_0.jpg")
        for view in range(1, 4) if i in chosen else ():
            write(further_view(pixels, augmentation, rng), folder / file.parent.name / f"{i}_{view}.jpg")


def compose_places(backgrounds: Sequence[Path], fronts: Sequence[Path], folder: Path) -> None:
    """Write images of two classes in the same places, each place twice for each class, and a copy of every tenth."""
    rng = np.random.default_rng(0)
    classes = sorted({front.parent.name for front in fronts})
    by_class = {name: iter(rng.permutation([f for f in fronts if f.parent.name == name])) for name in classes}
    for place, file in enumerate(backgrounds):
        background = np.asarray(Image.fromarray(read(file)).resize((256, 256)))
        for name in classes:
            for take in range(2):
                pixels = background.copy()
                top, left = rng.integers(0, 146, 2)
                front = Image.fromarray(read(next(by_class[name]))).resize((110, 110))
                pixels[top : top + 110, left : left + 110] = np.asarray(front)
                write(pixels, folder / name / f"{place}_{take}.jpg")
                if place % 5 == 0 and take == 0:
                    write(pixels, folder / name / f"copy{place}_{take}.jpg", quality=50)


def embedded(folder: Path, backbone: str) -> tuple[Features, Rows, NDArray[np.str_], NDArray[np.str_]]:
    """Return features, labels [n], and class and name of each image without its ending [n]."""
    dataset = open_dataset(folder)
    features = embed(dataset, backbones.load(backbone), Compute())
    items = [dataset.items[i] for i in features.index]
    classes = np.array([item.label for item in items])
    return features, np.unique(classes, return_inverse=True)[1], classes, np.array([Path(i.path).stem for i in items])


def same(names: Sequence[object] | NDArray[np.generic]) -> NDArray[np.bool_]:
    """Return which pairs [n, n] have equal names, but not of each with itself."""
    ids = np.unique(np.array(names, str), return_inverse=True)[1]
    return (ids[:, None] == ids[None, :]) & ~np.eye(len(ids), dtype=bool)


def describe(groups: Groups) -> str:
    return f"{groups.count} ({groups.largest})"


def measure_planted(name: str, kind: str, folder: Path) -> list[dict[str, object]]:
    rows = []
    for backbone in BACKBONES:
        features, labels, _, stems = embedded(folder, backbone)
        is_pair = same([stem.split("_")[0] for stem in stems])
        is_alone = ~is_pair.any(axis=1)
        for rule, group in RULES.items():
            groups = group(features, labels)
            together = same(groups.index)
            rows.append(
                {
                    "images": name,
                    "planted": kind,
                    "backbone": backbone,
                    "rule": rule,
                    "groups (largest)": describe(groups),
                    "kept": f"{together[is_pair].mean():.0%}",
                    "others linked": f"{together[is_alone].any(axis=1).mean():.0%}",
                }
            )
    return rows


def measure_places(folder: Path) -> list[dict[str, object]]:
    rows = []
    for backbone in BACKBONES:
        features, labels, classes, stems = embedded(folder, backbone)
        is_copy = same([f"{c} {stem.removeprefix('copy')}" for c, stem in zip(classes, stems, strict=True)])
        places = [stem.removeprefix("copy").split("_")[0] for stem in stems]
        of_class = same([f"{c} {place}" for c, place in zip(classes, places, strict=True)]) & ~is_copy
        for rule, group in RULES.items():
            groups = group(features, labels)
            together = same(groups.index)
            rows.append(
                {
                    "backbone": backbone,
                    "rule": rule,
                    "groups (largest)": describe(groups),
                    "copies": f"{together[is_copy].mean():.0%}",
                    "kept": f"{together[of_class].mean():.0%}",
                    "of other places linked": f"{(together & ~same(places)).any(axis=1).mean():.0%}",
                    "how": groups.method,
                }
            )
    return rows


def measure_scenes(folder: Path) -> list[dict[str, object]]:
    """Return how the scenes of horse-or-human are cut: images whose nearest of their scene is in another group."""
    rows = []
    for backbone in BACKBONES:
        features, labels, classes, stems = embedded(folder, backbone)
        scenes = [f"{c} {stem.split('-')[0]}" for c, stem in zip(classes, stems, strict=True)]
        vectors = unit_vectors(features.deepest[:], mean_vector(features.deepest, TILE))
        nearest = np.where(same(scenes), vectors @ vectors.T, -2).argmax(axis=1)
        found = {rule: group(features, labels) for rule, group in RULES.items()}
        found["true scenes"] = to_groups(np.unique(scenes, return_inverse=True)[1], "file names")
        for rule, groups in found.items():
            rows.append(
                {
                    "backbone": backbone,
                    "rule": rule,
                    "groups (largest)": describe(groups),
                    "nearest of its scene apart": f"{(groups.index != groups.index[nearest]).mean():.0%}",
                    "how": groups.method,
                }
            )
    return rows


def main() -> None:
    data = shared() / "data"
    ants_bees = sorted((data / "ants-bees" / "train").rglob("*.jpg"))
    horses = sorted((data / "horse-or-human" / "train").rglob("*.jpg"))
    one_a_scene = list({(file.parent.name, file.stem.split("-")[0]): file for file in horses}.values())
    with Scratch() as scratch:
        os.environ["HEADSTART_CACHE"] = str(scratch.cache())
        rows = []
        for name, files, count in (("ants-bees", ants_bees, 60), ("horse-or-human", one_a_scene, 20)):
            for kind, augmentation in PLANTED.items():
                folder = scratch.path / f"{name}-{kind}"
                plant(files, augmentation, count, folder)
                rows += measure_planted(name, kind, folder)
        print_table(rows)
        places = scratch.path / "places"
        compose_places(ants_bees[::5], horses, places)
        print_table(measure_places(places))
        print_table(measure_scenes(data / "horse-or-human" / "train"))


if __name__ == "__main__":
    main()
