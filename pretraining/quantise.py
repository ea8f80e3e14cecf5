"""Make the int8 versions of the built-in backbones: ``int8.onnx`` and ``int8.json`` beside ``backbone.onnx``.

    python quantise.py ants-bees horse-or-human

Needs Headstart alone. 100 training images of each dataset and 100 of the built-in rendered sample measure the ranges of
activations; neither labels nor validation images are used. The same images and version of ONNX Runtime give the same
files.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from headstart import backbones, open_dataset
from headstart.data.rendered import render
from headstart.features.int8 import make_int8

NAMES = ("headstart-s", "headstart-m")
RENDERED = 200  # images, of which some are drawn


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", nargs="+", help="datasets whose training images are drawn from")
    parser.add_argument("--count", type=int, default=300, help="images in all")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        rendered = Path(temporary) / "rendered"
        render("horses-or-humans", rendered, train=RENDERED, validation=0)
        datasets = [*map(open_dataset, options.data), open_dataset(str(rendered))]
        for name in NAMES:
            made = make_int8(backbones.load(name), datasets, options.count, options.seed)
            assert isinstance(made.graph, Path)
            print(name, made.sha256, made.graph.stat().st_size)


if __name__ == "__main__":
    main()
