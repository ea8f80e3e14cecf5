"""From images to features."""

from headstart.features.features import Features, embed

__all__ = ["Features", "embed"]
