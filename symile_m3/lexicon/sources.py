"""Where the names of classes come from: what `--names` says."""

from __future__ import annotations

from collections.abc import Sequence

from symile_m3.errors import LexiconError, UsageError
from symile_m3.lexicon.names import TABLES, Lexicon, builtin_lexicon
from symile_m3.media import ImagePool


def open_lexicon(spec: str, languages: Sequence[str], pool: ImagePool) -> Lexicon:
    """The names of a pool's classes in these languages, or of those classes that have names.

    Args:
        spec: what `--names` says: `builtin`, or the name of a built-in table.
        languages: language codes.
        pool: the images, whose class keys the names go by.

    Raises:
        UsageError: an unknown spec.
        LexiconError: the names do not fit the images, or there are none in one of the languages.
    """
    table = pool.table if spec == "builtin" else spec
    if not table:
        raise LexiconError(f"--names {spec}: no built-in names for these images; give a file: --names file:names.json")
    if table not in TABLES:
        raise UsageError(f"--names {spec}: unknown source of names; known: builtin, {', '.join(TABLES)}")
    return builtin_lexicon(table).select_languages(languages)
