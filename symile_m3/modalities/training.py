"""Training on declared modalities: each objective with the same data order, budget and seed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from symile_m3.errors import UsageError
from symile_m3.modalities.declaration import Declaration
from symile_m3.modalities.gather import make_portable
from symile_m3.modalities.saved import DATA
from symile_m3.modalities.splits import fingerprint_of, open_splits
from symile_m3.modalities.task import DeclaredTask
from symile_m3.modalities.towers import check_factories, new_model
from symile_m3.objectives import Objective
from symile_m3.processes import open_place
from symile_m3.progress import NoProgress, Progress
from symile_m3.recipe import RunOptions
from symile_m3.run import Run
from symile_m3.rundir import RunSummary
from symile_m3.runlog import check_logs
from symile_m3.shards import write_text
from symile_m3.train import carry_out, check_soft_targets, choose_objectives


def train_declared(
    declaration: Declaration,
    runs: Path,
    *,
    objectives: Sequence[str] = ("symile", "clip"),
    options: RunOptions | None = None,
    overwrite: bool = False,
    on_bad_sample: str = "stop",
    progress: Progress | None = None,
) -> list[RunSummary]:
    """Train each objective on the declared modalities, or go on with what was interrupted.

    A run is a directory as `symile_m3.train.train` writes it, with data.json beside, which says where its samples are.
    Once finished it holds what `symile_m3.load` needs.

    Raises:
        UsageError: the declaration asks for what cannot be.
        ShardError: the samples cannot be read, or lack what they must have.
        TrainingError: a run of another recipe or other data is there, the loss is no longer finite, or memory runs out.
    """
    progress = progress or NoProgress()
    options = options or RunOptions()
    config = declaration.config
    chosen = choose_objectives(objectives, config)
    check_soft_targets(config, chosen)
    check_logs(options.logs)
    place = open_place(config.precision)
    if not place.first:
        progress = NoProgress()
    sources = open_splits(declaration, on_bad_sample)
    samples = len(sources["train"])
    if config.batch_size > samples:
        raise UsageError(f"--batch-size {config.batch_size}: there are {samples} training samples; lower it")
    if config.batch_size % place.world:
        raise UsageError(f"--batch-size {config.batch_size}: give a multiple of the {place.world} processes")
    config = config.in_steps(samples)
    declaration = replace(declaration, config=config)
    check_factories(config)
    fingerprint = fingerprint_of(sources, declaration.data)

    def make(objective: Objective, directory: Path) -> Run:
        if place.first:
            write_text(directory / DATA, json.dumps(asdict(declaration.data), indent=2) + "\n")
        return Run(
            DeclaredTask(declaration, sources, on_bad_sample=on_bad_sample),
            objective,
            config,
            new_model(config, objective),
            directory,
            place,
            options=options,
            on_bad_sample=on_bad_sample,
        )

    def finish(objective: Objective, directory: Path) -> None:
        if options.portable:
            make_portable(directory, declaration, sources, objective, on_bad_sample=on_bad_sample)

    return carry_out(
        runs,
        chosen,
        config,
        place,
        fingerprint=fingerprint,
        weights=dict,
        data=declaration.data.arrays or str(list(declaration.data.train or declaration.data.all)),
        options=options,
        overwrite=overwrite,
        progress=progress,
        dim=config.dim,
        prepare=lambda: ("", make),
        finish=finish,
    )
