"""A run on declared modalities as a folder that can be used anywhere, and put on the Hugging Face Hub.

model.safetensors       the best weights
config.json             the recipe, with the modalities as they were declared
model.json              what else the model is, with the digests of the files (see `symile_m3.portable`)
standins.safetensors    what stands for a modality that a query lacks
declaration.toml        the declaration, without the places of the samples
README.md               the model card
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from symile_m3.errors import UsageError
from symile_m3.exportdir import Exported, best_top1, check_finished, figures_for, reading_figures, write_folder
from symile_m3.modalities.card import declared_card
from symile_m3.modalities.declaration import DeclaredConfig
from symile_m3.modalities.saved import CONFIG, read_declared
from symile_m3.modalities.written import declaration_text
from symile_m3.model_card import CardFacts
from symile_m3.portable import read_portable, read_record

DECLARATION = "declaration.toml"


def export_declared(
    run: Path, folder: Path, *, evaluation: Path | None, licence: str, name: str | None, overwrite: bool
) -> Exported:
    """Write a finished run as a folder, whole or not at all; see `symile_m3.export.export_run`.

    Raises:
        NotBuiltError: there is no finished run.
        UsageError: the folder holds something else, or the figures are of another model.
        TrainingError: a file of the run is damaged.
    """
    check_finished(run)
    portable = read_portable(run)
    record, (config, fingerprint) = read_record(run), read_declared(run)

    def figures(path: Path) -> Mapping[str, Any]:
        return _figures_of(path, portable.objective, config, fingerprint)

    test = figures_for(run, evaluation, figures)

    def fill(new: Path) -> Callable[[Mapping[str, str]], str]:
        shutil.copyfile(run / CONFIG, new / CONFIG)
        (new / DECLARATION).write_text(declaration_text(config, portable.dataset), encoding="utf-8")

        def card(files: Mapping[str, str]) -> str:
            return declared_card(
                CardFacts(
                    record=record,
                    config=config,
                    fingerprint=fingerprint,
                    weights={},
                    validation=best_top1(run),
                    test=test,
                    name=name or folder.name,
                    licence=licence,
                    files=files,
                )
            )

        return card

    return write_folder(run, folder, fill, overwrite=overwrite)


def _figures_of(path: Path, objective: str, config: DeclaredConfig, fingerprint: str) -> Mapping[str, Any]:
    """The test figures of the objective for every question, out of what `eval --json` wrote.

    Raises:
        UsageError: they are unreadable, or not of this model.
    """
    with reading_figures(path):
        report = json.loads(path.read_text(encoding="utf-8"))
        of, seeds, hidden = report["data"]["fingerprint"], report["seeds"][objective], float(report["missing_p"])
        questions = [
            {
                "retrieve": str(question["retrieve"]),
                "from": [str(name) for name in question["from"]],
                "n": int(question["n"]),
                "candidates": int(question["candidates"]),
                "chance": float(question["chance"]),
                "ci95": [float(bound) for bound in question["results"][objective]["ci95"]],
                **{key: float(question["results"][objective][key]) for key in ("top1", "top5", "mrr")},
            }
            for question in report["questions"]
        ]
    if of != fingerprint:
        raise UsageError(f"--eval {path}: figures on other samples than the run was trained with")
    if seeds != [config.seed]:
        raise UsageError(f"--eval {path}: figures of other runs, or of several; evaluate this one alone")
    if hidden:
        raise UsageError(f"--eval {path}: figures of queries that hide modalities; evaluate without --missing-p")
    return {"questions": questions}
