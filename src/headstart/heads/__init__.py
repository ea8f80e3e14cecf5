"""Heads: what is learned on top of the frozen features.

linear.py       Head: any of them in the end is one affine map, a temperature and a softmax
vectors.py      Vectors: the taps side by side, a block of rows at a time
statistics.py   Statistics: count, class sums and Gram matrix; they add, merge and subtract
solve.py        ridge, LDA and nearest centroid in closed form from Statistics
held_out.py     what each of these would have said of pictures left out, without refitting
logistic.py     logistic regression (scikit-learn), held out by folds of groups
descent.py      optimisers and class weights, for trainings
mlp.py          a hidden layer with dropout, trained (PyTorch)
expansion.py    random ReLU features before a linear head
novelty.py      how far a picture is from all that was learned
candidates.py   the heads that are tried, and how each did on groups left out
selection.py    choose taps, kind and penalty by held-out log-loss
learning_curve.py  what more pictures would bring
"""

from headstart.heads.candidates import Candidate
from headstart.heads.head import Head, softmax
from headstart.heads.mlp import Epoch, Training
from headstart.heads.ood import Familiar
from headstart.heads.selection import KINDS, Choice, Judged, as_good_as_the_best, judge, select
from headstart.heads.statistics import Statistics

__all__ = [
    "KINDS", "Candidate", "Choice", "Epoch", "Familiar", "Head", "Judged", "Statistics", "Training",
    "as_good_as_the_best", "judge", "select", "softmax",
]  # fmt: skip
