"""What a finished run gathers from its samples, so that its model can be used where they are not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from symile_m3.assembly import load_best
from symile_m3.checkpoints import BEST
from symile_m3.modalities.declaration import Declaration
from symile_m3.modalities.encoded import MEAN_OF, origins, stand_ins
from symile_m3.modalities.splits import fingerprint_of
from symile_m3.modalities.towers import new_model
from symile_m3.objectives import Objective
from symile_m3.portable import Portable, is_portable, write_portable
from symile_m3.shards import Source
from symile_m3.towers.device import device


def make_portable(
    directory: Path,
    declaration: Declaration,
    sources: Mapping[str, Source],
    objective: Objective,
    *,
    on_bad_sample: str = "stop",
) -> None:
    """Write what `symile_m3.load` needs beside the best weights of a run, unless it is there.

    Raises:
        TrainingError: the weights do not fit the recipe.
        SymileM3Error: the samples cannot be read.
    """
    if not (directory / BEST).is_file() or is_portable(directory):
        return
    data, config = declaration.data, declaration.config
    model = new_model(config, objective)
    load_best(model, directory / BEST)
    names = config.modality_names
    train = sources["train"]
    model.to(device())
    found = stand_ins(model, objective, train, config, data, names, MEAN_OF, on_bad_sample=on_bad_sample)
    write_portable(
        directory,
        Portable(
            objective=objective.name,
            standins={name: found[name] for name in names},
            origins=origins(names, config, objective, len(train)),
            dataset={
                "fingerprint": fingerprint_of(dict(sources), data),
                "samples": {name: len(source) for name, source in sources.items()},
                "label": data.label,
                "candidates": data.candidates,
                "retrieve": data.retrieve or names[0],
            },
        ),
    )
