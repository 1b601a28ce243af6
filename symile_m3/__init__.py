"""Symile-M3: multilingual image-text-audio triples, and Symile against pairwise CLIP on them."""

from symile_m3._version import __version__

__all__ = ["__version__"]
