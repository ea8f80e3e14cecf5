"""Class activation maps of new images, from the graph of a finished model."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstart.backbones.onnx.external_data import parse_graph
from headstart.backbones.onnx.unpool import FeatureMap, graph_with_maps, map_before_pooling
from headstart.data import Dataset
from headstart.errors import BackboneError, ModelError, OptionError
from headstart.features.runtime import Compute, Graph, load_graph, run_padded
from headstart.files import add_file, escape_file_name
from headstart.images.decoding import decode_with_size
from headstart.model.cam import class_activation
from headstart.model.compose import head_taps
from headstart.model.label_predictions import MultiLabelPredictions
from headstart.model.model import Model
from headstart.model.predictions import Predictions
from headstart.model.sorted_copies import NO_LABEL

FOR_COLOUR, AGAINST_COLOUR = (0, 90, 200), (230, 110, 0)  # as in the report
MAX_OPACITY = 165 / 255
BATCH = 16


@dataclass(frozen=True)
class Explainer:
    """The part of a model that gives the feature maps of its head, loaded."""

    model: Model
    graph: Graph
    maps: tuple[FeatureMap, ...]

    @classmethod
    def of(cls, model: Model) -> Explainer:
        """Load the maps of a model. Raises OptionError where its scores are not sums over locations."""
        if model.head.hidden_layer is not None:
            raise OptionError(
                "This model has no class activation maps: its head is not linear, so its scores are not sums over "
                "locations; leave --explain out."
            )
        try:
            graph = parse_graph(model.graph, Path("model.onnx"))
        except BackboneError as error:
            raise ModelError(str(error)) from None
        taps = head_taps(graph.graph)
        for tap in taps:
            if map_before_pooling(graph.graph, tap) is None:
                raise OptionError(
                    f"This model has no class activation maps: its cut {tap} is a vector, not the mean of a feature "
                    "map, so its scores have no locations; leave --explain out."
                )
        if len(taps) != len(model.head.taps):
            raise ModelError("model.onnx does not say where the features of the head are; fit the model again.")
        content, maps = graph_with_maps(graph, taps)
        return cls(model, load_graph(content, Compute("onnxruntime", workers=1)), tuple(maps))

    @classmethod
    def of_locations(cls, model: Model) -> Explainer | None:
        """Load the maps of a model, None where its scores are not sums over locations. Raises ModelError."""
        try:
            return cls.of(model)
        except OptionError:
            return None

    def activations(
        self, pixels: NDArray[np.uint8], positive: NDArray[np.integer], negative: NDArray[np.integer]
    ) -> Iterator[tuple[NDArray[np.float64], float]]:
        """Yield for each image the contributions [h, w] to the log-odds of one class over another, and the bias.

        ``pixels`` [n, height, width, 3] are preprocessed; ``positive`` and ``negative`` [n] are classes.
        """
        for i, image_maps in enumerate(self._maps(pixels)):
            yield class_activation(self.model.head, image_maps, int(positive[i]), int(negative[i]))

    def label_activations(
        self, pixels: NDArray[np.uint8], labels: Sequence[Sequence[int]]
    ) -> Iterator[list[NDArray[np.float64]]]:
        """Yield for each image the contributions [h, w] to the log-odds of each of its ``labels``.

        ``pixels`` [n, height, width, 3] are preprocessed.
        """
        for chosen, image_maps in zip(labels, self._maps(pixels), strict=True):
            yield [class_activation(self.model.head, image_maps, label, None)[0] for label in chosen]

    def _maps(self, pixels: NDArray[np.uint8]) -> Iterator[dict[str, NDArray[np.float32]]]:
        """Yield for each image the map [h, w, channels] of each tap."""
        head = self.model.head
        for start in range(0, len(pixels), BATCH):
            outputs = run_padded(self.graph, pixels[start : start + BATCH], self.model.batch)
            for row in range(min(BATCH, len(pixels) - start)):
                values = (outputs[source.tensor][row] for source in self.maps)
                yield {
                    tap: np.asarray(value if source.channels_last else value.transpose(1, 2, 0), np.float32)
                    for tap, source, value in zip(head.taps, self.maps, values, strict=True)
                }

    def write(self, dataset: Dataset, predictions: Predictions, folder: Path) -> int:
        """Write, for each image of ``predictions``, the image and its class activation map.

        ``dataset`` is what they are predictions for. A map tells which places speak for the predicted class (blue) and
        which for the next probable one (orange). Of several labels there is a map for each that holds, in a folder of
        its name: which places speak for it (blue) and against it (orange). Of an image without a label it is that of
        the most probable one, in a folder of its name in ``_no_label``; returned is how many images these are. Files
        have the names of the images; none is overwritten. Raises OSError.
        """
        for start in range(0, len(predictions), BATCH):  # so many decoded images are held
            places = range(start, min(start + BATCH, len(predictions)))
            pixels = np.stack([self._pixels(dataset, int(predictions.rows[i])) for i in places])
            for i, image, (below, activation) in self._activations_of(pixels, predictions, places):
                stream = io.BytesIO()
                side_by_side(image, activation).save(stream, "JPEG", quality=90)
                name = escape_file_name(PurePath(predictions.paths[i]).stem)
                add_file(folder / below, f"{name}.jpg", stream.getvalue())
        if not isinstance(predictions, MultiLabelPredictions):
            return 0
        return sum(not predictions.holding(i) for i in range(len(predictions)))

    def _activations_of(
        self, pixels: NDArray[np.uint8], predictions: Predictions, places: Sequence[int]
    ) -> Iterator[tuple[int, NDArray[np.uint8], tuple[str, NDArray[np.float64]]]]:
        """Yield the place of an image, its pixels, and below which folder its map is written, with the map."""
        if not isinstance(predictions, MultiLabelPredictions):
            pairs = np.array([predictions.ranking(i)[:2] for i in places])
            activations = self.activations(pixels, pairs[:, 0], pairs[:, 1])
            for i, image, (activation, _) in zip(places, pixels, activations, strict=True):
                yield i, image, ("", activation)
            return
        holding = [predictions.holding(i) for i in places]
        labels = [chosen or predictions.ranking(i)[:1] for i, chosen in zip(places, holding, strict=True)]
        activations_by_image = self.label_activations(pixels, labels)
        for i, image, holds, chosen, maps in zip(places, pixels, holding, labels, activations_by_image, strict=True):
            for label, activation in zip(chosen, maps, strict=True):
                name = escape_file_name(predictions.classes[label])
                yield i, image, (name if holds else f"{NO_LABEL}/{name}", activation)

    def _pixels(self, dataset: Dataset, row: int) -> NDArray[np.uint8]:
        preprocess = self.model.preprocess
        image, _ = decode_with_size(
            dataset.read(row),
            min_size=preprocess.min_size,
            sample_range=preprocess.sample_range,
            scaled=preprocess.is_scaled,
        )
        return preprocess(Image.fromarray(image))


def side_by_side(pixels: NDArray[np.uint8], activation: NDArray[np.float64]) -> Image.Image:
    """Return an image [height, width, 3] and beside it the same one under its activation map [h, w]."""
    height, width = pixels.shape[:2]
    relative = (activation / max(float(np.abs(activation).max()), 1e-12)).astype(np.float32)
    enlarged = np.asarray(Image.fromarray(relative).resize((width, height), Image.Resampling.BICUBIC))
    opacity = MAX_OPACITY * np.minimum(np.abs(enlarged), 1)[..., None]
    colour = np.where(enlarged[..., None] > 0, FOR_COLOUR, AGAINST_COLOUR)
    overlaid = np.rint((1 - opacity) * pixels + opacity * colour).astype(np.uint8)
    return Image.fromarray(np.concatenate([pixels, overlaid], axis=1))
