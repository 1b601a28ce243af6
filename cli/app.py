"""The app: its commands and the options that hold for all of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Annotated

import typer

from symile_m3.cli.build import build
from symile_m3.cli.compare import compare
from symile_m3.cli.encode import encode
from symile_m3.cli.eval import evaluate
from symile_m3.cli.export import export
from symile_m3.cli.info import info
from symile_m3.cli.lexicon import lexicon_app
from symile_m3.cli.options import paragraphs
from symile_m3.cli.preview import preview
from symile_m3.cli.quickstart import quickstart
from symile_m3.cli.report import report
from symile_m3.cli.train import train
from symile_m3.cli.verify import verify
from symile_m3.cli.xor import xor

app = typer.Typer(
    name="symile-m3",
    help="Build Symile-M3 datasets, and train and evaluate Symile against pairwise CLIP on them.",
    epilog="Example: symile-m3 build --langs 10 && symile-m3 train && symile-m3 eval --missing-p 0.5",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)

_EXAMPLES: tuple[tuple[str, Callable[..., None], str], ...] = (
    ("quickstart", quickstart, "symile-m3 quickstart"),
    ("build", build, "symile-m3 build --langs en,el,uk --words 2 --classes 100 --data data/three"),
    ("train", train, "symile-m3 train --objective symile --missing-p 0.5 --runs runs/missing"),
    ("encode", encode, "symile-m3 encode --data data/m3 --set image=clip:ViT-L-14@openai"),
    ("eval", evaluate, "symile-m3 eval --missing-p 0.5 --json eval.json"),
    ("report", report, "symile-m3 report --runs runs/m3 --out report"),
    ("export", export, "symile-m3 export --objective symile --out exported/symile"),
    ("compare", compare, "symile-m3 compare --langs 2,5,10 --seeds 3 --tune 8 --json compare.json"),
    ("verify", verify, "symile-m3 verify --data data/m3"),
    ("info", info, "symile-m3 info --data data/m3 --json info.json"),
    ("preview", preview, "symile-m3 preview --split test --samples 12 --output preview.html"),
    ("xor", xor, "symile-m3 xor --plot xor.png --json xor.json"),
)


for _name, _function, _example in _EXAMPLES:
    app.command(_name, help=paragraphs(_function), epilog=f"Example: {_example}")(_function)

app.add_typer(lexicon_app, name="lexicon")


def _show_version(value: bool) -> None:
    if value:
        from symile_m3 import __version__

        typer.echo(f"symile-m3 {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def options(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error. Also: SYMILE_M3_DEBUG=1.")
    ] = False,
) -> None:
    if debug:
        os.environ["SYMILE_M3_DEBUG"] = "1"
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
