"""Class activation maps: the contribution of each location of an image to the score of a class.

A head is linear in features that are means over the locations of feature maps, so a score is a sum over locations:
``score_k = sum_p map[p] . weights_k / locations + bias_k`` (Zhou et al. 2016, "Learning deep features for
discriminative localization", section 2). This is exact and needs no gradients: contributions and bias add up to the
score.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import Backbone, cut
from headstart.backbones.onnx.unpool import graph_with_maps, map_before_pooling
from headstart.features.cache import FeatureCache, entry_key
from headstart.features.runtime import Compute, load_graph, resolve_runtime, run_padded
from headstart.heads.head import Head

FP16_LIMIT = 60_000.0  # maps with larger values are cached as fp32
BATCH = 16
Map = NDArray[np.float32]


def why_unavailable(backbone: Backbone, head: Head) -> str:
    """Return the reason why a head has no class activation maps, as one sentence, or an empty text if it has."""
    if head.hidden_layer is not None:
        return (
            "The selected head is not linear: it applies ReLU features after averaging over the image, so its scores "
            "are not a sum over locations."
        )
    graph = cut(backbone, head.taps).graph
    sizes = {tap.name: tap.size for tap in backbone.taps}
    for tap in head.taps:
        if sizes[tap] is None or map_before_pooling(graph, tap) is None:
            return f"The cut {tap} is a vector, not the mean of a feature map, so its scores have no locations."
    return ""


def feature_maps(
    backbone: Backbone,
    taps: Sequence[str],
    images: Sequence[NDArray[np.uint8]],
    content_hashes: Sequence[bytes],
    cache: FeatureCache | None,
) -> list[dict[str, Map]]:
    """Return the feature maps [h, w, channels] of preprocessed images [height, width, 3] before pooling, by tap.

    ``content_hashes`` are the hashes of the image files. ONNX Runtime computes the maps in fp32; the cache keeps them
    as fp16.
    """
    keys = [{tap: _cache_key(content, backbone, tap) for tap in taps} for content in content_hashes]
    maps = _cached_maps(backbone, keys, cache)
    missing = [i for i, image_maps in enumerate(maps) if len(image_maps) < len(taps)]
    if not missing:
        return maps
    for i, image_maps in zip(missing, _compute_maps(backbone, taps, [images[i] for i in missing]), strict=True):
        maps[i] = image_maps
    if cache is not None:
        cache.put_many({keys[i][tap]: _to_cache(maps[i][tap]) for i in missing for tap in taps})
    return maps


def class_activation(
    head: Head, image_maps: Mapping[str, Map], positive: int, negative: int | None
) -> tuple[NDArray[np.float64], float]:
    """Return the contribution of each location to the log-odds of class ``positive`` over ``negative``, and the bias.

    Of a label that an image may have beside others ``negative`` is None: its log-odds are those of having it or not.
    ``image_maps`` holds a map [h, w, channels] for each tap of the head. The contributions have the size [h, w] of the
    finest map; those of a coarser map are spread evenly over the finer locations that it covers. All contributions
    and the bias add up to the log-odds.
    """
    height, width = (max(image_maps[tap].shape[axis] for tap in head.taps) for axis in (0, 1))
    activation = np.zeros((height, width))
    weights, bias = head.weights[:, positive].astype(np.float64), float(head.bias[positive])
    if negative is not None:
        weights, bias = weights - head.weights[:, negative], bias - float(head.bias[negative])
    weights = weights / head.temperature
    start = 0
    for tap in head.taps:
        feature_map = image_maps[tap].astype(np.float64)
        h, w, channels = feature_map.shape
        contributions = feature_map @ weights[start : start + channels] / (h * w)
        activation += _overlaps(height, h) @ contributions @ _overlaps(width, w).T
        start += channels
    return activation, bias / head.temperature


def _overlaps(fine: int, coarse: int) -> NDArray[np.float64]:
    """Return the share of each of ``coarse`` cells that lies in each of ``fine`` cells of the same line.

    The result has shape [fine, coarse]; its columns sum to 1.
    """
    edges = np.arange(fine + 1) * coarse / fine
    cells = np.arange(coarse)
    overlaps: NDArray[np.float64] = np.minimum(edges[1:, None], cells + 1) - np.maximum(edges[:-1, None], cells)
    return np.maximum(overlaps, 0.0)


def _cache_key(content_hash: bytes, backbone: Backbone, tap: str) -> bytes:
    runtime = resolve_runtime("onnxruntime").key
    return entry_key(content_hash, backbone.sha256, backbone.preprocess.fingerprint, runtime, "0", f"map:{tap}")


def _cached_maps(
    backbone: Backbone, keys: Sequence[Mapping[str, bytes]], cache: FeatureCache | None
) -> list[dict[str, Map]]:
    """Return for each image the maps, by tap, that the cache holds in the right size."""
    if cache is None:
        return [{} for _ in keys]
    shapes = {tap.name: (*(tap.size or (0, 0)), tap.channels) for tap in backbone.taps}
    values = iter(cache.get_many([key for image_keys in keys for key in image_keys.values()]))
    maps = []
    for image_keys in keys:
        cached = {tap: next(values) for tap in image_keys}
        maps.append(
            {
                tap: value.astype(np.float32).reshape(shapes[tap])
                for tap, value in cached.items()
                if value is not None and value.size == np.prod(shapes[tap])
            }
        )
    return maps


def _compute_maps(
    backbone: Backbone, taps: Sequence[str], images: Sequence[NDArray[np.uint8]]
) -> Iterator[dict[str, Map]]:
    """Yield for each image the map [h, w, channels] of each tap."""
    model, sources = graph_with_maps(cut(backbone, taps), taps)
    graph = load_graph(model, Compute("onnxruntime", workers=1))
    for start in range(0, len(images), BATCH):
        batch = np.stack(images[start : start + BATCH])
        outputs = run_padded(graph, batch, backbone.batch)
        for row in range(len(batch)):
            image_maps = {}
            for tap, source in zip(taps, sources, strict=True):
                value = outputs[source.tensor][row]
                channels_last = value if source.channels_last else value.transpose(1, 2, 0)
                image_maps[tap] = np.ascontiguousarray(channels_last, np.float32)
            yield image_maps


def _to_cache(feature_map: Map) -> NDArray[np.floating]:
    flat = feature_map.reshape(-1)
    return flat if float(np.abs(flat).max(initial=0)) > FP16_LIMIT else flat.astype(np.float16)
