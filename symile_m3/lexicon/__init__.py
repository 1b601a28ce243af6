"""Class names: the tables shipped with the package, where else names come from, and their checks."""

from symile_m3.lexicon.names import TABLES, Clash, Lexicon, builtin_lexicon, normalise, parse_table
from symile_m3.lexicon.sources import open_lexicon

__all__ = ["TABLES", "Clash", "Lexicon", "builtin_lexicon", "normalise", "open_lexicon", "parse_table"]
