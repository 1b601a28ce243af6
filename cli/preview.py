"""`symile-m3 preview`: a page of samples to look at and listen to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from symile_m3.cli.build import DATA
from symile_m3.cli.options import DatasetOption, SeedOption, output_path


def preview(
    data: DatasetOption = DATA,
    split: Annotated[str, typer.Option("--split", metavar="NAME", help="Split to draw from: train, val or test.")] = (
        "train"
    ),
    samples: Annotated[
        int, typer.Option("--samples", metavar="N", min=1, help="Samples on the page, each about 75 kB.")
    ] = 24,
    seed: SeedOption = 0,
    output: Annotated[
        Path,
        typer.Option(
            "--output", metavar="PATH", parser=output_path, help="The page to write.", rich_help_panel="Output"
        ),
    ] = Path("preview.html"),
    open_page: Annotated[
        bool, typer.Option("--open/--no-open", help="Open the page in the browser.", rich_help_panel="Output")
    ] = False,
) -> None:
    """Write a page of samples: the image, the words coloured by language, a player for the clip, and charts.

    The page is one file that needs nothing else and no network. The same seed gives the same page. Of a dataset
    behind a URL only the samples on the page are fetched.
    """
    from symile_m3.cli.output import size
    from symile_m3.preview import preview_page
    from symile_m3.shards import write_text

    page = preview_page(data, split, samples=samples, seed=seed)
    write_text(output, page.html)
    print(f"{output}: {len(page.keys):,} of {page.available:,} {split} samples, {size(len(page.html.encode()))}")
    if open_page:
        import webbrowser

        if not webbrowser.open(output.resolve().as_uri()):
            print(f"no browser could be started; open {output} yourself")
