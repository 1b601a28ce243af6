"""`symile-m3 lexicon check|translate|import|export`: files of class names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from symile_m3.cli.options import CorrectionsOption, JsonOption, output_path

if TYPE_CHECKING:
    from symile_m3.lexicon import NameTable

_SHOWN = 20  # findings of a kind that are listed; all are in the JSON

LangsOption = Annotated[
    str | None,
    typer.Option(
        "--langs",
        metavar="10|5|2|CODES",
        show_default="all that there are",
        help="Languages: one of the paper's sets, or codes: en,fr,pt-BR.",
    ),
]
OutputOption = Annotated[
    Path, typer.Option("--output", "-o", metavar="FILE", parser=output_path, help="The file that is written.")
]
SourceArgument = Annotated[
    str, typer.Argument(metavar="NAMES", help="Names: emoji, imagenet, or a file, *.json or *.tsv or file:PATH.")
]


def check_source(
    source: SourceArgument, langs: LangsOption = None, corrections: CorrectionsOption = None, json_to: JsonOption = None
) -> None:
    """Look for names that are missing, clash, or are in another script; exit with 1 if there are any.

    Names with some letters of another script, and those spelt as in English, are listed too, but may be meant so; a
    column `review` that says so (`ja: ...`) silences it.
    """
    table = _read(source, corrections)
    if not show_findings(table, _codes(langs, table), json_to):
        raise typer.Exit(1)


def translate(
    langs: Annotated[str, typer.Option("--langs", metavar="10|5|2|CODES", help="Languages to translate into.")],
    output: OutputOption,
    service: Annotated[
        str, typer.Option("--with", metavar="TRANSLATOR", help="Translator: google, or one that a package adds.")
    ] = "google",
    names: Annotated[
        str | None,
        typer.Option(
            "--names",
            metavar="NAMES",
            show_default="emoji",
            help="English names to translate: emoji, imagenet, or a file with English names.",
        ),
    ] = None,
    images: Annotated[
        str | None,
        typer.Option("--images", metavar="SOURCE", help="Translate what these images call their classes instead."),
    ] = None,
    corrections: CorrectionsOption = None,
    json_to: JsonOption = None,
) -> None:
    """Translate class names from English into a table, and say what failed the checks.

    The table is written as it grows; the same command, run again, translates only what is missing in it. Names that
    are put into it by hand are kept. Exits with 1 if a name is missing, clashes or is in another script.
    """
    from symile_m3.cli.output import command
    from symile_m3.cli.progress import open_progress
    from symile_m3.errors import UsageError
    from symile_m3.lexicon import NameTable, open_translator, read_names
    from symile_m3.lexicon.translate import fill_names
    from symile_m3.shards import write_text

    if names is not None and images is not None:
        raise UsageError("--names and --images: give one of them")
    if output.suffix != ".tsv":
        raise UsageError(f"--output {output}: the table is tab-separated; name a file that ends in .tsv")
    english, origin = _english(names or "emoji", images)
    there = read_names(output) if output.exists() else NameTable(where=str(output), names={})
    strangers = sorted(set(there.names) - set(english))
    if strangers:
        raise UsageError(f"--output {output}: holds other classes, such as {strangers[0]}; name another file")
    if corrections is not None:
        there = there.corrected(read_names(corrections), english)
    codes = _parse(langs)
    there = NameTable(
        where=there.where, names=there.names, categories={**origin, **there.categories}, reviews=there.reviews
    )
    every = tuple(sorted({*codes, *there.languages}))
    before = sum(len(row) for row in there.in_languages(codes).values())

    def keep(table: NameTable) -> None:
        write_text(output, table.to_table(every))

    progress = open_progress()
    table, failed = fill_names(open_translator(service), english, every, there, progress, keep)
    keep(table)
    for language, why in failed.items():
        for key, what in list(why.items())[:_SHOWN]:
            progress.say(f"{language}: {key} ({english[key]}): {what}")
    after = sum(len(row) for row in table.in_languages(codes).values())
    extra = {"translated": after - before, "there_before": before, "failed": sum(map(len, failed.values()))}
    fit = show_findings(table, codes, json_to, extra)
    following = command("build", names=(f"file:{output}", ""), langs=(",".join(codes), ""))
    progress.say(f"{output}: {after - before} names translated, {before} were there. Next: {following}")
    if not fit:
        raise typer.Exit(1)


def import_names(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="Names as JSON, or as a table.")],
    output: OutputOption,
    langs: LangsOption = None,
    corrections: CorrectionsOption = None,
) -> None:
    """Turn names in the JSON of the paper's authors into a tab-separated table, which is easier to read and mend.

    The file is {"tench": {"synset_id": "n01440764", "el": "...", "zh-CN": "..."}, ...}; without a synset_id a class is
    known by the key itself.
    """
    _convert(f"file:{source}", output, langs, corrections, ".tsv")


def export_names(
    source: SourceArgument, output: OutputOption, langs: LangsOption = None, corrections: CorrectionsOption = None
) -> None:
    """Write names as the JSON of the paper's authors (*.json) or as a tab-separated table (*.tsv)."""
    _convert(source, output, langs, corrections, ".json", ".tsv")


def _convert(source: str, output: Path, langs: str | None, corrections: Path | None, *suffixes: str) -> None:
    from symile_m3.errors import UsageError
    from symile_m3.shards import write_text

    if output.suffix not in suffixes:
        raise UsageError(f"--output {output}: name a file that ends in {' or '.join(suffixes)}")
    table = _read(source, corrections)
    codes = _codes(langs, table)
    write_text(output, table.to_json(codes) if output.suffix == ".json" else table.to_table(codes))
    named = sum(len(row) for row in table.in_languages(codes).values())
    typer.echo(f"{output}: {len(table.names)} classes in {len(codes)} languages, {named} names")


def _read(source: str, corrections: Path | None) -> NameTable:
    from symile_m3.lexicon import read_names, read_source

    table = read_source(source)
    return table.corrected(read_names(corrections)) if corrections else table


def _parse(langs: str) -> tuple[str, ...]:
    """Languages, of which there may be one only."""
    from symile_m3.errors import UsageError
    from symile_m3.languages import parse_codes, parse_languages

    codes = parse_languages(langs) if langs.strip().isdecimal() else parse_codes(langs)
    if not codes:
        raise UsageError(f"--langs {langs}: names no language")
    return codes


def _codes(langs: str | None, table: NameTable) -> tuple[str, ...]:
    return table.languages if langs is None else _parse(langs)


def _english(names: str, images: str | None) -> tuple[dict[str, str], dict[str, str]]:
    """Class key -> English name to translate, and class key -> category."""
    from symile_m3.errors import LexiconError
    from symile_m3.images import open_image_pool
    from symile_m3.lexicon import builtin_names, read_source
    from symile_m3.lexicon.translate import english_names

    if images is None:
        table = read_source(names)
        english, categories = english_names({}, table), table.categories
    else:
        pool = open_image_pool(images)
        known = builtin_names(pool.table) if pool.table else None
        labels = {key: label for key, label in pool.labels().items() if key in pool.classes()}
        english, categories = english_names(labels, known), known.categories if known else {}
        english = {key: name for key, name in english.items() if key in labels}
    if not english:
        raise LexiconError(f"{images or names}: no English names to translate")
    return english, {key: categories.get(key, "") for key in english}


def show_findings(
    table: NameTable, codes: tuple[str, ...], json_to: Path | None, extra: dict[str, Any] | None = None
) -> bool:
    """Check names and show what is found; whether nothing must be mended."""
    from symile_m3.cli.output import show
    from symile_m3.lexicon import check_names

    found = check_names(table, codes)
    kinds: list[tuple[str, list[str]]] = [
        ("clashing names", [str(clash) for clash in found.clashes]),
        ("missing names", [f"no name for {key} in {language}" for key, language in found.missing]),
        ("in another script", [f"{one.class_key} in {one.language}: {one.name}" for one in found.script]),
    ]
    remarks: list[tuple[str, list[str]]] = [
        (title, [f"{one.class_key} in {one.language}: {one.name}" for one in some])
        for title, some in (("partly in another script", found.mixed), ("spelt as in English", found.english))
    ]
    counts = ", ".join(f"{len(lines)} {title}" for title, lines in kinds)
    parts = [f"{len(table.names)} classes in {len(codes)} languages: {counts}"]
    for title, lines in [*kinds, *remarks]:
        if lines and (title, lines) in remarks:
            parts.append(f"Perhaps meant so: {len(lines)} {title}")
        parts += lines[:_SHOWN]
        if len(lines) > _SHOWN:
            parts.append(f"and {len(lines) - _SHOWN} more {title}")
    misfits = {
        kind: [[one.class_key, one.language, one.name] for one in getattr(found, kind)]
        for kind in ("script", "mixed", "english")
    }
    figures: dict[str, Any] = {
        "languages": list(codes),
        "classes": len(table.names),
        "clashes": [{"name": clash.name, "uses": [list(use) for use in clash.uses]} for clash in found.clashes],
        "missing": [list(pair) for pair in found.missing],
        **misfits,
        **(extra or {}),
    }
    show(parts, figures, json_to)
    return found.fit
