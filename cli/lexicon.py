"""`symile-m3 lexicon`: the class names, listed; its commands check, translate, import and export them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from symile_m3.cli.lexicon_files import check_source, export_names, import_names, show_findings, translate
from symile_m3.cli.options import CorrectionsOption, JsonOption, paragraphs

if TYPE_CHECKING:
    from symile_m3.lexicon import NameTable


def lexicon(
    context: typer.Context,
    langs: Annotated[
        str,
        typer.Option(
            "--langs", metavar="10|5|2|CODES", help="Languages: one of the paper's sets, or codes: en,fr,pt-BR."
        ),
    ] = "10",
    category: Annotated[
        str | None,
        typer.Option("--category", metavar="NAME", help="Classes of this category only, such as food or food-fruit."),
    ] = None,
    names: Annotated[
        str, typer.Option("--names", metavar="SOURCE", help="Class names: builtin, emoji, imagenet, file:PATH, google.")
    ] = "builtin",
    images: Annotated[
        str | None,
        typer.Option(
            "--images",
            metavar="SOURCE",
            show_default="emoji, or all classes that the names have",
            help="Images whose classes are meant.",
        ),
    ] = None,
    corrections: CorrectionsOption = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="Look for names that are missing, or stand for two classes or two languages."),
    ] = False,
    json_to: JsonOption = None,
) -> None:
    """List the class names, or check that each stands for one class and one language.

    The list is a table on a terminal and tab-separated elsewhere. `--check` exits with 1 if it finds
    anything. The commands work on files of names: tab-separated tables, and the JSON of the paper's authors.
    """
    if context.invoked_subcommand is not None:
        return
    from symile_m3.errors import UsageError
    from symile_m3.languages import parse_languages

    codes = parse_languages(langs)
    table = _names(names, images, codes, corrections)
    if category is not None:
        keys = [key for key, one in table.categories.items() if one == category or one.startswith(f"{category}-")]
        if not keys:
            known = ", ".join(sorted(set(table.categories.values())))
            raise UsageError(f"--category {category}: unknown; known: {known}")
        table = table.select(keys)
    if not check:
        _list(table, codes, json_to)
    elif not show_findings(table, codes, json_to):
        raise typer.Exit(1)


def _names(spec: str, images: str | None, codes: tuple[str, ...], corrections: Path | None) -> NameTable:
    """The names that the options name; without images, those of the whole table or file."""
    from symile_m3.cli.progress import open_progress
    from symile_m3.images import open_image_pool
    from symile_m3.lexicon import TABLES, NameTable, builtin_reviews, open_lexicon, read_names, read_source

    if images is None and (spec in TABLES or spec.startswith("file:")):
        table = read_source(spec)
        return table.corrected(read_names(corrections)) if corrections else table
    pool = open_image_pool(images or "emoji")
    found = open_lexicon(spec, codes, pool, corrections=str(corrections or ""), progress=open_progress())
    reviews = builtin_reviews(pool.table) if pool.table and spec in ("builtin", pool.table) else {}
    return NameTable.of_lexicon(found, where=f"--names {spec}", reviews=reviews)


def _list(table: NameTable, codes: tuple[str, ...], json_to: Path | None) -> None:
    from symile_m3.cli.output import show
    from symile_m3.cli.tables import lexicon_table

    names = table.in_languages(codes)
    rows = [
        (key, picture(key), table.categories.get(key, ""), *(names[key].get(code, "") for code in codes))
        for key in sorted(names)
    ]
    header = ("class", "", "category", *codes)
    classes = [
        {"class_key": key, "category": group, "names": names[key]}
        | ({"review": table.reviews[key]} if key in table.reviews else {})
        for key, _, group, *_ in rows
    ]
    figures: dict[str, Any] = {"languages": list(codes), "classes": classes}
    if sys.stdout.isatty() or json_to is not None:
        show([lexicon_table(header, rows), f"{len(rows)} classes in {len(codes)} languages"], figures, json_to)
    else:
        for line in (("class_key", "emoji", "category", *codes), *rows):
            print("\t".join(line))


def picture(class_key: str) -> str:
    """The character of a class whose key is its code points: `1f41f` -> a fish."""
    try:
        return "".join(chr(int(part, 16)) for part in class_key.split("-"))
    except (ValueError, OverflowError):
        return ""


lexicon_app = typer.Typer(
    invoke_without_command=True,
    help=paragraphs(lexicon),
    epilog="Example: symile-m3 lexicon --langs en,el --category food",
)
lexicon_app.callback(help=paragraphs(lexicon), invoke_without_command=True)(lexicon)
for _name, _function, _example in (
    ("check", check_source, "symile-m3 lexicon check names.json --langs fr,ru,ro"),
    ("translate", translate, "symile-m3 lexicon translate --langs fr,ru,ro --images folder:photos --output names.tsv"),
    ("import", import_names, "symile-m3 lexicon import translations.json --output names.tsv"),
    ("export", export_names, "symile-m3 lexicon export imagenet --langs 10 --output translations.json"),
):
    lexicon_app.command(_name, help=paragraphs(_function), epilog=f"Example: {_example}")(_function)
