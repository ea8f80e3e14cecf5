"""Heads: what is learned on top of the frozen features. Pure algebra on NumPy arrays.

head.py                 Head: in the end every head is an affine map, a temperature and a softmax
integers.py             IntegerVectors: features as whole numbers of a step for each channel
vectors.py              Vectors: the taps side by side, read a block of rows at a time
statistics.py           Statistics: count, class sums and Gram matrix; they add, merge and subtract
eigenbasis.py           Eigenbasis: the vectors in the directions in which they vary
leave_one_group_out.py  what the closed forms of leave-one-group-out share
ridge.py                ridge regression, with closed-form dropout
lda.py                  linear discriminant analysis
centroid.py             nearest class mean
folds.py                folds of whole groups, for heads without a closed form
logistic.py             logistic regression (scikit-learn), held out by folds of groups
mlp.py                  a hidden layer with dropout, trained (PyTorch)
optimizers.py           optimizers and class weights of the heads and layers that are trained
ood.py                  OodDetector: how far an image is from the training images
training_set.py         TrainingSet: what a head learns from
candidates.py           the kinds of heads, and the held-out loss of each candidate
selection.py            try taps, kinds and penalties, and average the best by held-out log-loss
label_ridge.py          ridge on several labels an image, exact with unknown cells
label_selection.py      the head for several labels an image
live_labels.py          held-out predictions of that head after every change of a label or an image
learning_curve.py       accuracy expected of more images
"""
