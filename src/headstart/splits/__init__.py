"""Which images are trained on, which are held out for validation, and which belong together.

pairs.py   pairs of images a block at a time: sets, edges, spanning forests
copies.py  augmented copies, by laying one image on another
nearest.py nearest neighbours by rounded numbers, where there are many pairs
scenes.py  images of one scene, by what features have beyond those of the class
groups.py  groups of images that are not independent: copies, near duplicates, frames of one scene
named.py   groups that people know: columns, folders, file names, EXIF times
split.py   Split: training and validation rows, labels and groups
label_split.py  LabelSplit: the same where an image may have several labels
"""
