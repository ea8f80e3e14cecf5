"""Where the head looked: what every place of a picture adds to the score.

A head is linear in vectors that are means over the places of a map, so a score is a sum over places:
``score_k = sum_p map[p] . weights_k / places + bias_k`` (class activation maps, Zhou et al. 2016, section 2). Nothing
is approximated and nothing is differentiated: the places and the bias add up to the score.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import Backbone, cut
from headstart.backbones.onnx.unpool import graph_with_maps, map_before_pooling
from headstart.features.cache import FeatureCache, entry_key
from headstart.features.runtime import load_graph, resolve_runtime, run_padded
from headstart.heads import Head

FP16_LIMIT = 60_000.0
BATCH = 16


def unavailable(backbone: Backbone, head: Head) -> str:
    """Why there can be no such maps for a head, in one sentence; an empty text if there can."""
    if head.expansion is not None:
        return (
            "The chosen head bends its features (random ReLU features) after they were averaged over the picture, "
            "so its scores are no sum over places."
        )
    graph = cut(backbone, head.taps).graph
    for tap in head.taps:
        size = next(t.size for t in backbone.taps if t.name == tap)
        if size is None or map_before_pooling(graph, tap) is None:
            return f"The cut {tap} is a vector from the start, not the mean of a map, so its scores have no places."
    return ""


def maps(
    backbone: Backbone, taps: Sequence[str], pixels: Sequence[NDArray[np.uint8]], content: Sequence[bytes],
    cache: FeatureCache | None,
) -> list[dict[str, NDArray[np.float32]]]:  # fmt: skip
    """Of preprocessed pictures [height, width, 3] the maps [h, w, channels] of ``taps`` before pooling, each by tap.

    ``content`` are hashes of the pictures' bytes. ONNX Runtime computes them in fp32; the cache keeps them as fp16.
    """
    info = resolve_runtime("onnxruntime")
    shapes = {t.name: (*(t.size or (0, 0)), t.channels) for t in backbone.taps}

    def key(one: bytes, tap: str) -> bytes:
        return entry_key(one, backbone.sha256, backbone.preprocess.fingerprint, info.key, "0", f"map:{tap}")

    keys = [[key(one, tap) for tap in taps] for one in content]
    known = cache.get_many([k for row in keys for k in row]) if cache is not None else [None] * (len(keys) * len(taps))
    found: list[dict[str, NDArray[np.float32]]] = []
    for number in range(len(keys)):
        some = zip(taps, known[number * len(taps) : (number + 1) * len(taps)], strict=True)
        found.append({
            tap: v.astype(np.float32).reshape(shapes[tap])
            for tap, v in some if v is not None and v.size == np.prod(shapes[tap])
        })  # fmt: skip
    missing = [i for i, each in enumerate(found) if len(each) < len(taps)]
    if missing:
        graph, sources = graph_with_maps(cut(backbone, taps), taps)
        running = load_graph(graph, runtime="onnxruntime", workers=1)
        for start in range(0, len(missing), BATCH):
            some_rows = missing[start : start + BATCH]
            outputs = run_padded(running, np.stack([pixels[i] for i in some_rows]), backbone.batch)
            for place, i in enumerate(some_rows):
                for tap, source in zip(taps, sources, strict=True):
                    one = outputs[source.tensor][place]
                    found[i][tap] = np.ascontiguousarray(
                        one if source.channels_last else one.transpose(1, 2, 0), np.float32
                    )
        if cache is not None:
            cache.put_many({
                k: _shrunk(found[i][tap]) for i in missing for tap, k in zip(taps, keys[i], strict=True)
            })  # fmt: skip
    return found


def contributions(
    head: Head, found: dict[str, NDArray[np.float32]], towards: int, against: int
) -> tuple[NDArray[np.float64], float]:
    """What each place adds to the log-odds of class ``towards`` over class ``against``, and what no place does.

    ``found`` maps the head's taps to maps [h, w, channels]; the result is [h, w] of the finest of them, a coarser map's
    place spread evenly over the finer ones it covers. All places and the second number sum to the log-odds.
    """
    height, width = (max(found[tap].shape[axis] for tap in head.taps) for axis in (0, 1))
    total, start = np.zeros((height, width)), 0
    weights = (head.weights[:, towards].astype(np.float64) - head.weights[:, against]) / head.temperature
    for tap in head.taps:
        own = found[tap].astype(np.float64)
        h, w, channels = own.shape
        parts = own @ weights[start : start + channels] / (h * w)
        total += _shares(height, h) @ parts @ _shares(width, w).T
        start += channels
    return total, float((float(head.bias[towards]) - float(head.bias[against])) / head.temperature)


def _shares(fine: int, coarse: int) -> NDArray[np.float64]:
    """How the places of a coarse side are spread over a finer one, [fine, coarse]; columns sum to 1."""
    edges = np.arange(fine + 1) * coarse / fine
    place = np.arange(coarse)
    shares: NDArray[np.float64] = np.minimum(edges[1:, None], place + 1) - np.maximum(edges[:-1, None], place)
    return np.maximum(shares, 0.0)


def _shrunk(value: NDArray[np.float32]) -> NDArray[np.floating]:
    flat = value.reshape(-1)
    return flat if float(np.abs(flat).max(initial=0)) > FP16_LIMIT else flat.astype(np.float16)
