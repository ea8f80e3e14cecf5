"""Issues in a dataset of images: duplicates, leaks, wrong labels, outliers and images of low quality.

check.py        runs all checks on a dataset, or on the features of a fit
finding.py      what every check returns: the kind of issue, the files, how sure it is and what to do
duplicates.py   identical files and near duplicates; those in several splits (leaks) or with several labels
crops.py        near duplicates of which one image is a crop of the other
labels.py       label issues by confident learning; outliers
cells.py        label issues where images have several labels: which label is missing, or wrong, of which image
quality.py      tiny, oddly shaped, empty, dark, bright, blurred and grey images
classes.py      classes that are empty, small or far smaller than another
table.py        a table of all images with their findings, to edit and to fit on
"""

from headstart.check.check import CheckResult, check_dataset, check_from_features
from headstart.check.finding import Finding
from headstart.check.table import check_names, check_table_file, left_out_notes, write_table

__all__ = [
    "CheckResult",
    "Finding",
    "check_dataset",
    "check_from_features",
    "check_names",
    "check_table_file",
    "left_out_notes",
    "write_table",
]
