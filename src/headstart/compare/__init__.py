"""Backbones compared on one data set, and models on the same images."""
