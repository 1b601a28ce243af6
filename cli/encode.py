"""`symile-m3 encode`: frozen features of every image and clip, ahead of training."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Annotated

import typer

from symile_m3.cli.build import DATA
from symile_m3.cli.options import BadSampleOption, DatasetOption, JsonOption, WorkersOption, shown_root
from symile_m3.cli.train import preset_config


def encode(
    data: DatasetOption = DATA,
    preset: Annotated[
        str, typer.Option("--preset", metavar="NAME", help="Settings to start from, as for train.")
    ] = "default",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A tower or another setting; may be repeated."),
    ] = None,
    on_bad_sample: BadSampleOption = "stop",
    workers: WorkersOption = None,
    json_to: JsonOption = None,
) -> None:
    """Run the frozen backbones over a dataset: once for every distinct image and clip.

    What they give is kept beside the dataset, and train and eval take it from there. Interrupted, it goes on
    where it stopped when the same command is run again. Train does the same by itself; give both the same
    --preset and --set.
    """
    from symile_m3.cli.output import command, duration, show, size
    from symile_m3.cli.progress import open_progress
    from symile_m3.cli.tables import facts
    from symile_m3.features import feature_folders, make_features, open_dataset

    config = preset_config(preset).with_settings(settings or []).features
    progress = open_progress()
    began = time.perf_counter()
    dataset = open_dataset(data, on_bad_sample, progress)
    features, passes = make_features(dataset, config, progress, workers=workers)
    seconds = time.perf_counter() - began
    media = {"images": len(features.image_NVF), "clips": len(features.clip_NF)}
    kept = {"images": features.image_NVF.nbytes, "clips": features.clip_NF.nbytes}
    folders = feature_folders(dataset, config)
    figures = {
        "data": shown_root(data),
        "config": asdict(config),
        "seconds": round(seconds, 2),
        **{
            kind: {
                "media": media[kind],
                "passes": passes[kind],
                "shape": list((features.image_NVF if kind == "images" else features.clip_NF).shape[1:]),
                "nbytes": kept[kind],
                "folder": str(folders[kind]),
            }
            for kind in media
        },
    }
    sets = [word for setting in settings or [] for word in ("--set", setting)]
    rows = [
        (kind, f"{media[kind]:,}, {passes[kind]:,} encoded now, {size(kept[kind])} in {folders[kind]}")
        for kind in media
    ]
    show(
        [
            facts(f"Features in {duration(seconds)}", rows),
            f"Next: {command('train', *sets, data=(shown_root(data), str(DATA)), preset=(preset, 'default'))}",
        ],
        figures,
        json_to,
    )
