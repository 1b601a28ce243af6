"""Class names: the tables shipped with the package, where else names come from, and their checks."""

from symile_m3.lexicon.checks import Findings, check_names
from symile_m3.lexicon.files import NameTable, builtin_names, parse_names, read_names
from symile_m3.lexicon.names import TABLES, Clash, Lexicon, builtin_lexicon, builtin_reviews, normalise, parse_table
from symile_m3.lexicon.sources import open_lexicon, open_translator, read_source

__all__ = [
    "TABLES",
    "Clash",
    "Findings",
    "Lexicon",
    "NameTable",
    "builtin_lexicon",
    "builtin_names",
    "builtin_reviews",
    "check_names",
    "normalise",
    "open_lexicon",
    "open_translator",
    "parse_names",
    "parse_table",
    "read_names",
    "read_source",
]
