"""Links between images by their nearest neighbours, by three libraries for that and by whole numbers.

    pip install faiss-cpu hnswlib usearch
    python benchmarks/nearest.py [--counts 20000,100000]

Generated features of 1,280 channels whose variances fall as those of a network's features do, in 100 classes; a fifth
of the images are in scenes of four, more or less alike. Their residuals (``splits.scenes``) are searched for 16
neighbours, in the 256 principal components that ``splits.nearest`` takes: by navigable small-world graphs (Malkov &
Yashunin 2020) with the same connections and search width in all three libraries. "headstart" is ``splits.nearest``,
which multiplies whole numbers, and compares what it finds again in full. One thread, processor time. "Found" are the
links (pairs of cosine 0.45 or more) of 500 images among their neighbours; "again" says whether a second run found the
same.
"All pairs" is the time of 500 images times the rest. Each row is a process.
"""

from __future__ import annotations

import argparse
import hashlib
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from headstart.heads.integers import IntegerVectors
from headstart.machine import single_threaded_blas
from headstart.splits import nearest
from headstart.splits.scenes import CHANCE_FACTOR, LINKED, _Residuals
from headstart.splits.whole_numbers import principal_axes

WIDTH, CLASSES, QUERIES = 1280, 100, 500
LINK = 0.45  # about the threshold of a scene
CONNECTIONS, BUILD_WIDTH, SEARCH_WIDTH = 16, 100, 64  # of the graphs: candidates that are followed at a time
Rows = NDArray[np.int64]


def features(count: int) -> tuple[IntegerVectors, Rows]:
    """Return features as whole numbers, and the classes [n]."""
    rng = np.random.default_rng(0)
    spread = np.geomspace(1, 0.03, WIDTH).astype(np.float32)
    own = rng.standard_normal((count, WIDTH), dtype=np.float32) * spread
    scene = np.arange(count)
    in_scenes = count // 5 // 4 * 4
    for further in (1, 2, 3):
        rows = np.arange(further, in_scenes, 4)
        own[rows] = own[rows - further] + rng.uniform(0.2, 1.2, (len(rows), 1)).astype(np.float32) * own[rows]
        scene[rows] = rows - further
    labels = scene % CLASSES
    means = rng.standard_normal((CLASSES, WIDTH), dtype=np.float32) * spread**1.5 * 0.28
    rotation = np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))[0].astype(np.float32)
    order = rng.permutation(count)
    whole = np.empty((count, WIDTH), np.int16)
    for start in range(0, count, 10_000):
        rows = order[start : start + 10_000]
        whole[start : start + 10_000] = np.rint(np.maximum((means[labels[rows]] + own[rows]) @ rotation, 0) * 1024)
    return IntegerVectors(whole, np.full(WIDTH, -10)), labels[order]


def by_faiss(vectors: NDArray[np.float32], count: int) -> Rows:
    import faiss

    faiss.omp_set_num_threads(1)
    index = faiss.IndexHNSWFlat(vectors.shape[1], CONNECTIONS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction, index.hnsw.efSearch = BUILD_WIDTH, SEARCH_WIDTH
    index.add(vectors)
    found: Rows = index.search(vectors, count)[1]
    return found


def by_hnswlib(vectors: NDArray[np.float32], count: int) -> Rows:
    import hnswlib

    index = hnswlib.Index("ip", vectors.shape[1])
    index.init_index(len(vectors), M=CONNECTIONS, ef_construction=BUILD_WIDTH, random_seed=0)
    index.set_ef(SEARCH_WIDTH)
    index.add_items(vectors, num_threads=1)
    return index.knn_query(vectors, count, num_threads=1)[0].astype(np.int64)


def by_usearch(vectors: NDArray[np.float32], count: int) -> Rows:
    from usearch.index import Index

    index = Index(
        ndim=vectors.shape[1],
        metric="ip",
        dtype="f32",
        connectivity=CONNECTIONS,
        expansion_add=BUILD_WIDTH,
        expansion_search=SEARCH_WIDTH,
    )
    index.add(np.arange(len(vectors)), vectors, threads=1)
    return np.asarray(index.search(vectors, count, threads=1).keys, np.int64)


LIBRARIES: dict[str, Callable[[NDArray[np.float32], int], Rows]] = {
    "faiss": by_faiss,
    "hnswlib": by_hnswlib,
    "usearch": by_usearch,
}


def measure(name: str, count: int) -> str:
    """Return a row of the table."""
    vectors, labels = features(count)
    residuals, rows = _Residuals(vectors, labels, 1_100), np.arange(count)
    queries = np.linspace(0, count - 1, QUERIES).astype(np.int64)
    start = time.process_time()
    exact = np.concatenate([residuals[queries] @ residuals[rows[i : i + 2_000]].T for i in range(0, count, 2_000)], 1)
    all_pairs = (time.process_time() - start) * count / QUERIES / 2  # each pair once
    exact[np.arange(QUERIES), queries] = -2
    best = np.argsort(-exact, axis=1)[:, :LINKED]
    is_link = np.take_along_axis(exact, best, axis=1) >= LINK
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    hashes, seconds = [], 0.0
    for _ in range(2 if count <= 20_000 else 1):
        start = time.process_time()
        if name == "headstart":
            index = nearest.NearestIndex(residuals, rows, LINK / CHANCE_FACTOR**0.5)
            found = index.search(residuals, rows, LINKED, sets=rows)[0]
            print(f"headstart{index.method}", file=sys.stderr)
        else:
            axes = principal_axes(residuals, rows)
            projected = np.concatenate([residuals[rows[i : i + 2_000]] @ axes for i in range(0, count, 2_000)])
            projected /= np.linalg.norm(projected, axis=1, keepdims=True)
            found = LIBRARIES[name](projected, LINKED + 1)
        seconds = time.process_time() - start
        hashes.append(hashlib.sha256(np.ascontiguousarray(found).tobytes()).hexdigest())
    hits = [np.isin(best[i][is_link[i]], found[row]) for i, row in enumerate(queries)]
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
    again = "-" if len(hashes) == 1 else "same" if hashes[0] == hashes[1] else "other"
    share = np.concatenate(hits)
    return (
        f"| {count:,} | {name} | {seconds:.0f} | {all_pairs:.0f} | {share.sum()} of {len(share)} | {again} | {memory} |"
    )


def main() -> None:
    """Print a row for each library and number of images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", default="20000,100000")
    parser.add_argument("--libraries", default="faiss,hnswlib,usearch,headstart")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        with single_threaded_blas():
            print(measure(arguments.worker[0], int(arguments.worker[1])), flush=True)
        return
    print(
        "| images | by | s | all pairs, s | links found | again | further memory, MiB |\n|---|---|---|---|---|---|---|"
    )
    sys.stdout.flush()
    for count in arguments.counts.split(","):
        for name in arguments.libraries.split(","):
            subprocess.run([sys.executable, __file__, "--worker", name, count], check=True)


if __name__ == "__main__":
    main()
