"""Predictions in parts beside those of all images at once: until the first results, and in all.

    python benchmarks/predict_in_parts.py MODEL DATA

The two take turns, three times each, on a graph that is loaded.
"""

import statistics
import sys
import time

from headstart import Predictor, ReadOptions, open_dataset

ROUNDS = 3


def main(model: str, data: str) -> None:
    predictor = Predictor.load(model)
    dataset = open_dataset(data, ReadOptions(layout="image"))
    predictor.predict_dataset(dataset.select(range(32)))
    seconds: dict[str, list[float]] = {"whole": [], "parts": [], "first": []}
    for _ in range(ROUNDS):
        start = time.perf_counter()
        predictor.predict_dataset(dataset)
        seconds["whole"].append(time.perf_counter() - start)
        start = time.perf_counter()
        for number, _ in enumerate(predictor.predict_in_parts(dataset)):
            if number == 0:
                seconds["first"].append(time.perf_counter() - start)
        seconds["parts"].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"{len(dataset)} images:", ", ".join(f"{name} {value:.3f} s" for name, value in medians.items()))
    print(f"parts / whole: {sum(seconds['parts']) / sum(seconds['whole']):.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
