"""Which images are trained on, which are held out for validation, and which belong together.

groups.py  groups of images that are not independent: copies, near duplicates, frames of one scene
split.py   Split: training and validation rows, labels and groups
"""
