"""Uncertainty of results: intervals, paired tests, calibration. Pure functions of NumPy arrays.

accuracy.py        accuracy with an interval
classification.py  confusion matrix, precision, recall and F1 by class
paired.py          differences between two models on the same images
platt.py           calibration of several labels, a slope and an offset each
label_metrics.py   metrics of several labels an image, with intervals
label_thresholds.py  thresholds of labels that keep a recall or a precision
temperature.py     calibration by one temperature
conformal.py       prediction sets and rejection with a target coverage
decision.py        decisions by costs and thresholds, and their mean cost
"""
