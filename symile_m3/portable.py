"""What a trained model needs beside its weights and its recipe, so that it can be used where its dataset is not.

    model.json              objective, widths, facts of the dataset, and the digests of the files beside it
    vocabulary.json         the words of the text table, in the order of its rows; where the text tower is `ngram`
    audio_net.safetensors   the net that was fitted to the clips; where the audio tower is `conv`
    standins.safetensors    modality -> (D,) what stands for one that a query lacks

They lie in the directory of a run, beside best.safetensors, and in an exported folder, beside model.safetensors.
model.json is written last, and names the weights that the others belong to.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from symile_m3.checkpoints import BEST, load_weights, save_weights
from symile_m3.errors import NotBuiltError, TrainingError
from symile_m3.shards import write_text

MODEL = "model.json"
VOCABULARY = "vocabulary.json"
AUDIO_NET = "audio_net.safetensors"
STANDINS = "standins.safetensors"
CONFIG = "config.json"
EXPORTED = "model.safetensors"
BESIDE = (VOCABULARY, AUDIO_NET, STANDINS)

_FORMAT = 1
_AGAIN = "run the same `symile-m3 train` once more, which adds what a run lacks; export an exported folder again"


@dataclass(frozen=True, kw_only=True)
class Portable:
    """What a model needs beside its weights and recipe.

    Attributes:
        objective: its name.
        image_features: F of the image features; of no account for a backbone that is trained, and declared modalities.
        audio_features: F of the clip features; None where the tower takes log-mels, and for declared modalities.
        words: of the text table, by row; empty for a pretrained text tower, and for declared modalities.
        audio_net: the weights of the net fitted to the clips, by name; None for other audio towers.
        standins: modality -> (D,) what stands for a missing one.
        origins: modality -> what that is.
        dataset: facts of the dataset it was trained on, for people and for preparing media alike.
    """

    objective: str
    image_features: int = 0
    audio_features: int | None = None
    words: tuple[str, ...] = ()
    audio_net: Mapping[str, Tensor] | None = None
    standins: Mapping[str, Tensor]
    origins: Mapping[str, str]
    dataset: Mapping[str, Any] = field(default_factory=dict)


def write_portable(directory: Path, portable: Portable) -> None:
    """Write the files beside the best weights in the directory of a run.

    Raises:
        TrainingError: there are no weights.
        ShardError: the disk does not take them.
    """
    (directory / MODEL).unlink(missing_ok=True)
    if portable.words:
        content = json.dumps({"words": portable.words}, ensure_ascii=False, indent=0)
        write_text(directory / VOCABULARY, content + "\n")
    if portable.audio_net is not None:
        save_weights(directory / AUDIO_NET, portable.audio_net, {"tower": "conv"})
    save_weights(directory / STANDINS, portable.standins, dict(portable.origins))
    record = {
        "format": _FORMAT,
        "objective": portable.objective,
        "image_features": portable.image_features,
        "audio_features": portable.audio_features,
        "standins": dict(portable.origins),
        "dataset": dict(portable.dataset),
        "weights": digest(directory / BEST),
        "files": {name: digest(directory / name) for name in _needed(portable)},
    }
    write_text(directory / MODEL, json.dumps(record, indent=2, ensure_ascii=False) + "\n")


def _needed(portable: Portable) -> list[str]:
    absent = {VOCABULARY: not portable.words, AUDIO_NET: portable.audio_net is None}
    return [name for name in BESIDE if not absent.get(name)]


def is_portable(directory: Path) -> bool:
    """Whether the files are there, and belong to the weights that are there."""
    try:
        record = read_record(directory)
        return all(digest(directory / name) == record["files"][name] for name in record["files"]) and (
            digest(weights_file(directory)) == record["weights"]
        )
    except (NotBuiltError, TrainingError):
        return False


def weights_file(directory: Path) -> Path:
    """The best weights of a run, or the weights of an exported folder.

    Raises:
        NotBuiltError: there are none.
    """
    for name in (EXPORTED, BEST):
        if (directory / name).is_file():
            return directory / name
    raise NotBuiltError(f"{directory}: no trained model (neither {BEST} nor {EXPORTED}); run `symile-m3 train` first")


def read_record(directory: Path) -> dict[str, Any]:
    """model.json.

    Raises:
        NotBuiltError: it is not there.
        TrainingError: it is unreadable, or of a later version.
    """
    path = directory / MODEL
    try:
        record: dict[str, Any] = dict(json.loads(path.read_text(encoding="utf-8")))
        known = record["format"] <= _FORMAT
        dict(record["files"]), dict(record["dataset"]), str(record["weights"]), str(record["objective"])
    except FileNotFoundError:
        raise NotBuiltError(
            f"{directory}: has no {MODEL}, so it cannot be used without its dataset (interrupted, or of an older "
            f"symile-m3); {_AGAIN}"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"{path}: unreadable ({type(error).__name__}); {_AGAIN}") from error
    if not known:
        raise TrainingError(f"{path}: written by a later symile-m3; install that one to use it")
    unknown = sorted(set(record["files"]) - set(BESIDE))
    if unknown:
        raise TrainingError(f"{path}: names a file {unknown[0]!r} that is no part of a model; {_AGAIN}")
    return record


def read_portable(directory: Path) -> Portable:
    """What lies beside the weights in the directory of a run or in an exported folder; every file is checked.

    Raises:
        NotBuiltError: it is not there.
        TrainingError: something is damaged, or belongs to other weights.
    """
    record = read_record(directory)
    if digest(weights_file(directory)) != record["weights"]:
        raise TrainingError(
            f"{weights_file(directory)}: not the weights that {MODEL} beside it was written for; {_AGAIN}"
        )
    for name, wanted in record["files"].items():
        if digest(directory / name) != wanted:
            raise TrainingError(f"{directory / name}: not the file that {MODEL} beside it was written with; {_AGAIN}")
    try:
        audio_features = record["audio_features"]
        words: tuple[str, ...] = ()
        if VOCABULARY in record["files"]:
            words = tuple(json.loads((directory / VOCABULARY).read_text(encoding="utf-8"))["words"])
        return Portable(
            objective=record["objective"],
            image_features=int(record["image_features"]),
            audio_features=None if audio_features is None else int(audio_features),
            words=words,
            audio_net=load_weights(directory / AUDIO_NET) if AUDIO_NET in record["files"] else None,
            standins=load_weights(directory / STANDINS),
            origins=dict(record["standins"]),
            dataset=dict(record["dataset"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"{directory / MODEL}: unreadable ({error!r}); {_AGAIN}") from error


def digest(path: Path) -> str:
    """SHA-256 of a file.

    Raises:
        TrainingError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise TrainingError(f"{path}: cannot be read ({error.strerror}); {_AGAIN}") from error
