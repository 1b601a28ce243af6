"""Class names: the table shipped with the package, and its checks."""

from symile_m3.lexicon.names import Clash, Lexicon, builtin_lexicon, normalise, open_lexicon, parse_table

__all__ = ["Clash", "Lexicon", "builtin_lexicon", "normalise", "open_lexicon", "parse_table"]
