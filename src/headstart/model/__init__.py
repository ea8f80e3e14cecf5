"""The model folder: everything that is needed to answer, as data only.

model.py    Model: classes, preprocessing, head and graph of a finished classifier
graph.py    backbone and head as one ONNX graph: uint8 pictures in, probabilities out
golden.py   a few pictures and their answers, to prove a machine answers the same
folder.py   write whole or not at all, read with distrust
"""

from headstart.model.compose import compose
from headstart.model.folder import check_target, read, write
from headstart.model.golden import Verified, make_golden, verify
from headstart.model.model import Golden, Model

__all__ = ["Golden", "Model", "Verified", "check_target", "compose", "make_golden", "read", "verify", "write"]
