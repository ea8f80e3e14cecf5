"""One image: decoding, preprocessing for a network, augmentation, and small thumbnails with image statistics.

decoding.py    decode: the bytes of a file to RGB pixels
rgb.py         an opened image of any mode to RGB pixels, in strips
arrays.py      PIL images and arrays to RGB pixels
samples.py     black and white of images of more than 8 bits, measured on the training images
remarks.py     what is said of images that are not used whole: bands beyond colour, bits beyond 8
preprocess.py  Preprocess: crop and resize for a network
standalone.py  decoding, crop and resize as one file that needs NumPy and Pillow alone
snippet.py     that file with the numbers of a model
augment.py     augmented views
thumbnail.py   small images, and image statistics
"""

from headstart.images.decoding import decode

__all__ = ["decode"]
