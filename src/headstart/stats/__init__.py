"""Uncertainty of results: intervals, paired tests, calibration. Pure functions of NumPy arrays.

accuracy.py        accuracy with an interval
classification.py  confusion matrix, precision, recall and F1 by class
paired.py          differences between two models on the same images
temperature.py     calibration by one temperature
conformal.py       prediction sets and rejection with a target coverage
decision.py        decisions by costs and thresholds, and their mean cost
"""
