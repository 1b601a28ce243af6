"""`symile-m3 lexicon`: the class names, listed and checked."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from symile_m3.cli.options import JsonOption

if TYPE_CHECKING:
    from symile_m3.lexicon import Lexicon


def lexicon(
    langs: Annotated[
        str,
        typer.Option("--langs", metavar="10|5|2|CODES", help="Languages: one of the paper's sets, or codes: en,el,uk."),
    ] = "10",
    category: Annotated[
        str | None,
        typer.Option("--category", metavar="NAME", help="Classes of this category only, such as food or food-fruit."),
    ] = None,
    names: Annotated[str, typer.Option("--names", metavar="SOURCE", help="Class names: builtin.")] = "builtin",
    images: Annotated[
        str, typer.Option("--images", metavar="SOURCE", help="Images whose classes are meant: emoji.")
    ] = "emoji",
    check: Annotated[
        bool,
        typer.Option("--check", help="Look for names that are missing, or stand for two classes or two languages."),
    ] = False,
    json_to: JsonOption = None,
) -> None:
    """List the class names, or check that each stands for one class and one language.

    The list is a table on a terminal and tab-separated elsewhere. `--check` exits with 1 if it finds
    anything.
    """
    from symile_m3.errors import UsageError
    from symile_m3.images import open_image_pool
    from symile_m3.languages import parse_languages
    from symile_m3.lexicon import open_lexicon

    chosen = open_lexicon(names, parse_languages(langs), open_image_pool(images))
    if category is not None:
        keys = [
            key
            for key, one in zip(chosen.class_keys, chosen.categories, strict=True)
            if one == category or one.startswith(f"{category}-")
        ]
        if not keys:
            known = ", ".join(sorted(set(chosen.categories)))
            raise UsageError(f"--category {category}: unknown; known: {known}")
        chosen = chosen.select_classes(keys)
    if not _check(chosen, json_to) if check else _list(chosen, json_to):
        raise typer.Exit(1)


def _list(lexicon: Lexicon, json_to: JsonOption) -> bool:
    from symile_m3.cli.output import show
    from symile_m3.cli.tables import lexicon_table

    rows = [
        (key, picture(key), group, *row)
        for key, group, row in zip(lexicon.class_keys, lexicon.categories, lexicon.names, strict=True)
    ]
    header = ("class", "", "category", *lexicon.languages)
    classes = [
        {"class_key": key, "category": group, "names": dict(zip(lexicon.languages, row, strict=True))}
        for key, group, row in zip(lexicon.class_keys, lexicon.categories, lexicon.names, strict=True)
    ]
    figures: dict[str, Any] = {"languages": list(lexicon.languages), "classes": classes}
    if sys.stdout.isatty() or json_to is not None:
        show(
            [lexicon_table(header, rows), f"{len(rows)} classes in {len(lexicon.languages)} languages"],
            figures,
            json_to,
        )
    else:
        for line in (("class_key", "emoji", "category", *lexicon.languages), *rows):
            print("\t".join(line))
    return False


def _check(lexicon: Lexicon, json_to: JsonOption) -> bool:
    """Whether all is well."""
    from symile_m3.cli.output import show

    clashes = lexicon.clashes()
    missing = [
        (key, language)
        for key, row in zip(lexicon.class_keys, lexicon.names, strict=True)
        for language, name in zip(lexicon.languages, row, strict=True)
        if not name.strip()
    ]
    lines = [
        f"{len(lexicon)} classes in {len(lexicon.languages)} languages: "
        f"{len(clashes)} clashing names, {len(missing)} missing names",
        *(str(clash) for clash in clashes),
        *(f"no name for {key} in {language}" for key, language in missing),
    ]
    figures: dict[str, Any] = {
        "languages": list(lexicon.languages),
        "classes": len(lexicon),
        "clashes": [{"name": clash.name, "uses": [list(use) for use in clash.uses]} for clash in clashes],
        "missing": [list(pair) for pair in missing],
    }
    show(lines, figures, json_to)
    return not clashes and not missing


def picture(class_key: str) -> str:
    """The character of a class whose key is its code points: `1f41f` -> a fish."""
    try:
        return "".join(chr(int(part, 16)) for part in class_key.split("-"))
    except (ValueError, OverflowError):
        return ""
