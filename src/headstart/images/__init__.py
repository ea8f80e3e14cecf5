"""One image: decoding, preprocessing for a network, augmentation, and small thumbnails with image statistics."""
