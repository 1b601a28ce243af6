"""`symile-m3 export`: a trained run as a folder for use elsewhere, and on the Hugging Face Hub."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from symile_m3.cli.options import RUNS, JsonOption, OverwriteOption, RunsOption

_HUB = "Hugging Face Hub"


def export(
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Folder to write.")],
    runs: RunsOption = RUNS,
    objective: Annotated[str, typer.Option("--objective", metavar="NAME", help="Which of the runs.")] = "symile",
    evaluation: Annotated[
        Path | None,
        typer.Option(
            "--eval",
            metavar="PATH",
            show_default="eval.json in --runs, if it is there",
            help="Figures for the model card, as eval --json writes them.",
        ),
    ] = None,
    licence: Annotated[
        str, typer.Option("--license", metavar="NAME", help="Licence of the model, as the Hub calls licences.")
    ] = "other",
    push: Annotated[
        str | None,
        typer.Option("--push", metavar="OWNER/NAME", help="Also put it on the Hub.", rich_help_panel=_HUB),
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="Only the owner may see it there.", rich_help_panel=_HUB)
    ] = False,
    overwrite: OverwriteOption = False,
    json_to: JsonOption = None,
) -> None:
    """Write a trained run as a folder: weights, configuration, vocabulary and a model card.

    The folder needs neither the dataset nor the run: symile_m3.load(FOLDER) opens it on any machine. With --push it
    goes to the Hugging Face Hub too, from where symile_m3.load("OWNER/NAME") opens it.
    """
    from symile_m3.errors import UsageError

    if private and push is None:
        raise UsageError("--private: says how --push makes the model; give both")

    from symile_m3.cli.output import show, size
    from symile_m3.cli.progress import open_progress
    from symile_m3.cli.tables import facts
    from symile_m3.export import export_run
    from symile_m3.hubpush import check_push, push_folder
    from symile_m3.objectives import OBJECTIVES

    if objective not in OBJECTIVES:
        raise UsageError(f"--objective {objective}: unknown; known: {', '.join(OBJECTIVES)}")
    if push is not None:
        check_push(push)
    done = export_run(runs / objective, out, evaluation=evaluation, licence=licence, name=push, overwrite=overwrite)
    address = None
    if push is not None:
        from huggingface_hub.utils.tqdm import disable_progress_bars

        if not sys.stderr.isatty():
            disable_progress_bars()
        open_progress().say(f"Uploading {size(sum(done.files.values()))} to {push}")
        address = push_folder(out, push, private=private, overwrite=overwrite, message=f"Add {objective} by symile-m3")
    rows = [(name, size(nbytes)) for name, nbytes in done.files.items()]
    state = "" if done.written else ", as it was there already"
    show(
        [
            facts(f"{objective} in {out}, {size(sum(done.files.values()))}{state}", rows),
            *([f"On the Hub: {address}"] if address else []),
            f"Next: python -c 'import symile_m3; print(symile_m3.load(\"{push or out}\"))'",
        ],
        {"folder": str(out), "objective": objective, "files": done.files, "written": done.written, "hub": address},
        json_to,
    )
