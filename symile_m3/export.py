"""A trained run as a folder that can be used anywhere and put on the Hugging Face Hub.

    model.safetensors       the best weights
    config.json             the recipe
    model.json              what else the model is, with the digests of the files (see `symile_m3.portable`)
    vocabulary.json  audio_net.safetensors  standins.safetensors
    towers/<modality>/      a pretrained backbone that was a local file or folder
    README.md               the model card

A run on declared modalities is exported by `symile_m3.modalities.export`.
The bytes depend on the run, the figures and the options alone.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from symile_m3.errors import TrainingError, UsageError
from symile_m3.exportdir import Exported, best_top1, check_finished, figures_for, reading_figures, write_folder
from symile_m3.modalities.export import export_declared
from symile_m3.modalities.saved import is_declared_run
from symile_m3.model import MODALITIES
from symile_m3.model_card import CardFacts, model_card
from symile_m3.portable import CONFIG, read_portable, read_record
from symile_m3.recipe import TrainConfig
from symile_m3.rundir import read_config
from symile_m3.towers.spec import TowerSpec
from symile_m3.towers.weights import find_weights

TOWERS = "towers"
_PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl"}


def export_run(
    run: Path,
    folder: Path,
    *,
    evaluation: Path | None = None,
    licence: str = "other",
    name: str | None = None,
    overwrite: bool = False,
) -> Exported:
    """Write a finished run as a folder, whole or not at all.

    Args:
        run: its directory, `runs/<objective>`.
        evaluation: figures that `symile-m3 eval --json` wrote; by default eval.json beside the run, if it is there.
        licence: of the model, as the Hub calls licences.
        name: `owner/name` on the Hub, for the card; by default the name of the folder.
        overwrite: put it in the place of an earlier export.

    Raises:
        NotBuiltError: there is no finished run.
        UsageError: the folder holds something else, or the figures are of another model.
        TrainingError: a file of the run is damaged.
    """
    if is_declared_run(run):
        return export_declared(run, folder, evaluation=evaluation, licence=licence, name=name, overwrite=overwrite)
    check_finished(run)
    read_portable(run)
    record, (config, fingerprint, weights) = read_record(run), read_config(run)

    def figures(path: Path) -> Mapping[str, Any]:
        return _figures_of(path, record, config, fingerprint)

    test = figures_for(run, evaluation, figures)

    def fill(new: Path) -> Callable[[Mapping[str, str]], str]:
        moved = _copy_towers(config, weights, new)
        _write_config(run, new, moved)

        def card(files: Mapping[str, str]) -> str:
            return model_card(
                CardFacts(
                    record=record,
                    config=moved,
                    fingerprint=fingerprint,
                    weights=weights,
                    validation=best_top1(run),
                    test=test,
                    name=name or folder.name,
                    licence=licence,
                    files=files,
                )
            )

        return card

    return write_folder(run, folder, fill, overwrite=overwrite)


def _write_config(run: Path, new: Path, moved: TrainConfig) -> None:
    record = json.loads((run / CONFIG).read_text(encoding="utf-8"))
    record["features"] |= {"image": moved.features.image, "audio": moved.features.audio}
    record["model"] |= {"text": moved.model.text}
    (new / CONFIG).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _copy_towers(config: TrainConfig, weights: Mapping[str, str], new: Path) -> TrainConfig:
    """Take backbones that lie in local files along; the recipe with specs that lead to them.

    Raises:
        TrainingError: they are others than the run began with, or pickled.
    """
    specs = (config.features.image_tower, config.features.audio_tower, config.model.text_tower)
    for spec in specs:
        path = _local(spec)
        if path is None:
            continue
        found = find_weights(spec)
        if found.fingerprint() != weights.get(spec.modality):
            raise TrainingError(f"{spec}: other weights than the run began with; put the former back")
        pickled = [file.name for file in found.files if file.suffix in _PICKLES]
        if pickled:
            raise TrainingError(
                f"{spec}: {pickled[0]} is pickled, and nobody should have to unpickle it; save it as safetensors, "
                "train from that, and export again"
            )
        into = f"{TOWERS}/{spec.modality}"
        (new / into).mkdir(parents=True)
        for file in found.files:
            shutil.copyfile(file, new / into / file.name)
        config = with_tower(config, spec, f"./{into}" if path.is_dir() else f"./{into}/{path.name}")
    return config


def _local(spec: TowerSpec) -> Path | None:
    """The file or folder that a spec names; None where it names a model elsewhere, or a tower of ours."""
    if not spec.pretrained:
        return None
    path = Path(spec.name.partition("@")[2] or spec.name).expanduser()
    return path if path.exists() else None


def with_tower(config: TrainConfig, spec: TowerSpec, path: str) -> TrainConfig:
    """The recipe with another local path in the spec of a tower."""
    model, at, _ = spec.name.partition("@")
    text = f"{spec.kind}:{model}@{path}" if at else f"{spec.kind}:{path}"
    text += f":{'train' if spec.trained else 'frozen'}"
    if spec.modality == "text":
        return replace(config, model=replace(config.model, text=text))
    changes: dict[str, Any] = {spec.modality: text}
    return replace(config, features=replace(config.features, **changes))


def _figures_of(path: Path, record: Mapping[str, Any], config: TrainConfig, fingerprint: str) -> Mapping[str, Any]:
    """The test figures of the objective, out of what `eval --json` wrote.

    Raises:
        UsageError: they are unreadable, or not of this model.
    """
    objective = record["objective"]
    with reading_figures(path):
        report = json.loads(path.read_text(encoding="utf-8"))
        result: dict[str, Any] = report["results"][objective]
        of, seeds = report["dataset"]["fingerprint"], [run["seed"] for run in result["runs"]]
        float(result["top1"]), int(result["n"]), [float(bound) for bound in result["ci95"]]
    if of != fingerprint:
        raise UsageError(f"--eval {path}: figures on another dataset than the run was trained on")
    if seeds != [config.seed]:
        raise UsageError(f"--eval {path}: figures of other runs, or of several; evaluate this one alone")
    return result


def located(config: TrainConfig, directory: Path) -> TrainConfig:
    """The recipe of an exported folder with the paths of the backbones that came along as they are on this machine."""
    for modality in MODALITIES:
        spec = config.model.text_tower if modality == "text" else getattr(config.features, f"{modality}_tower")
        model, _, tag = spec.name.partition("@")
        inside = tag or model
        if inside.startswith(f"./{TOWERS}/{modality}") and ".." not in inside:
            config = with_tower(config, spec, str(directory / inside.removeprefix("./")))
    return config
