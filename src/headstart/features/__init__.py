"""From images to features.

features.py       Features, and embed: the features of a dataset in one pass
extractor.py      FeatureExtractor: read, look up, decode, preprocess and run, each step beside the others
rows.py           FeatureRows: features that are kept without the images, and merging them
rows_folder.py    a folder of them, as Parquet files, read as untrusted data
statistics_folder.py a folder of sums over rows, read as untrusted data
running_sums.py   such sums that grow a shard at a time, and stay where a run is stopped
input_scaling.py  a backbone whose scaling nothing names: the one that fits the images
runtime.py        Compute, and graphs on OpenVINO or ONNX Runtime
cache.py          FeatureCache: vectors on disk by the content of the image
cache_contents.py what the cache folder holds, and clearing it
"""

from headstart.features.cache import FeatureCache
from headstart.features.features import Features, embed
from headstart.features.runtime import Compute

__all__ = ["Compute", "FeatureCache", "Features", "embed"]
