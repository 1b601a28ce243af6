"""`symile-m3 verify`: whether a dataset is what it says, and leaks nothing."""

from __future__ import annotations

from typing import Annotated

import typer

from symile_m3.cli.build import DATA
from symile_m3.cli.options import DatasetOption, JsonOption, shown_root


def verify(
    data: DatasetOption = DATA,
    probes: Annotated[
        bool,
        typer.Option(
            "--probes/--no-probes",
            help="Train small classifiers to see whether text alone or audio alone says more than it may.",
        ),
    ] = True,
    json_to: JsonOption = None,
) -> None:
    """Check a dataset: checksums, format, leaks between splits, names, and what text and audio give away.

    Exits with 1 if there is a problem; each is one line. A dataset behind a URL is fetched anew, shard by shard,
    whatever the cache holds of it: what is checked is what is there now. With --probes it takes as much room as the
    dataset, in the directory for temporary files; without, no more than the cache may.
    """
    from symile_m3.audit import verify as verify_dataset
    from symile_m3.cli.output import show
    from symile_m3.cli.progress import open_progress
    from symile_m3.cli.tables import audit_tables

    audit = verify_dataset(data, probes=probes, progress=open_progress())
    figures = {
        "data": shown_root(data),
        "ok": audit.ok,
        "problems": list(audit.problems),
        "checks": dict(audit.checks),
        "probes": audit.probes,
    }
    show(audit_tables(audit.checks, audit.probes, audit.problems), figures, json_to)
    if not audit.ok:
        raise typer.Exit(1)
