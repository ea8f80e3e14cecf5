"""Public datasets that can be downloaded by name: their archives, licences and sources."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Archive:
    """An archive of a dataset: its URL, its size in bytes and its SHA-256 (None where nobody published one).

    ``root`` is the folder inside the archive whose contents are the data; ``subfolder`` is the folder of the dataset
    into which they go.
    """

    url: str
    size: int | None
    sha256: str | None
    root: str = ""
    subfolder: str = ""


@dataclass(frozen=True)
class PublicDataset:
    """A dataset: its archives, its licence, and the URL of the page that describes it."""

    archives: tuple[Archive, ...]
    licence: str
    source: str


_BUCKET = "https://storage.googleapis.com"

# Sizes and hashes: TensorFlow Datasets' url_checksums (horses-or-humans, flower-photos), PyTorch's tutorials
# (ants-bees); of cats-and-dogs-filtered only a size is known, from the course's own notebooks.
PUBLIC_DATASETS = {
    "horses-or-humans": PublicDataset(
        (
            Archive(
                f"{_BUCKET}/download.tensorflow.org/data/horse-or-human.zip",
                149_574_867,
                "e2e6f70d3d549c5dd10a57165e55af253ee66ad750403f95c0fb76bb943633a9",
                subfolder="train",
            ),
            Archive(
                f"{_BUCKET}/download.tensorflow.org/data/validation-horse-or-human.zip",
                11_480_187,
                "ae5fff2f4f5554791f05358108e2e05d9801b191f1896ea101402f0e7f6c32c0",
                subfolder="validation",
            ),
        ),
        "CC BY 2.0, Laurence Moroney",
        "https://laurencemoroney.com/datasets.html",
    ),
    "cats-and-dogs-filtered": PublicDataset(
        (
            Archive(
                f"{_BUCKET}/mledu-datasets/cats_and_dogs_filtered.zip",
                68_606_236,
                None,
                root="cats_and_dogs_filtered",
            ),
        ),
        "not stated; a part of Kaggle's Dogs vs. Cats",
        "https://www.kaggle.com/c/dogs-vs-cats",
    ),
    "flower-photos": PublicDataset(
        (
            Archive(
                f"{_BUCKET}/download.tensorflow.org/example_images/flower_photos.tgz",
                228_813_984,
                "4c54ace7911aaffe13a365c34f650e71dd5bf1be0a58b464e5a7183e3e595d9c",
                root="flower_photos",
            ),
        ),
        "CC BY 2.0, the photographers named in LICENSE.txt",
        "https://www.tensorflow.org/datasets/catalog/tf_flowers",
    ),
    "ants-bees": PublicDataset(
        (
            Archive(
                "https://download.pytorch.org/tutorial/hymenoptera_data.zip",
                47_286_322,
                "fbc41b31d544714d18dd1230b1e2b455e1557766e13e67f9f5a7a23af7c02209",
                root="hymenoptera_data",
            ),
        ),
        "not stated; a part of ImageNet, for research",
        "https://pytorch.org/tutorials/beginner/transfer_learning_tutorial.html",
    ),
}
