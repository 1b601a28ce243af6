"""Opening a trained model: from the directory of a run, an exported folder, or the Hugging Face Hub."""

from __future__ import annotations

import re
from os import PathLike
from pathlib import Path

from symile_m3.checkpoints import BEST
from symile_m3.errors import NotBuiltError, TrainingError, UsageError
from symile_m3.export import TOWERS, located
from symile_m3.loading import TrainedModel, open_model
from symile_m3.modalities.loading import DeclaredModel, open_declared
from symile_m3.modalities.saved import is_declared_run
from symile_m3.objectives import OBJECTIVES
from symile_m3.portable import BESIDE, CONFIG, EXPORTED, MODEL, read_portable
from symile_m3.rundir import read_config

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_WANTED = (
    *(CONFIG, MODEL, EXPORTED, *BESIDE),
    *(f"{TOWERS}/*{suffix}" for suffix in (".safetensors", ".json", ".txt", ".model")),  # nothing that is pickled
)


def load(run: str | PathLike[str], *, revision: str | None = None) -> TrainedModel | DeclaredModel:
    """A trained model, for use without its dataset: a `TrainedModel` of triples, or a `DeclaredModel`.

    Args:
        run: the directory of a run (`runs/m3/symile`), a folder written by `symile-m3 export`, or the name of a model
            on the Hugging Face Hub (`owner/name`), which is downloaded once.
        revision: of the model on the Hub: a branch, tag or commit.

    Raises:
        NotBuiltError: there is no such run or model, or the run is not finished.
        UsageError: the directory holds several runs, the name is none, or a tower of the user's is not to be had.
        TrainingError: something is damaged or cannot be downloaded.
    """
    directory = Path(run).expanduser()
    downloaded = not directory.is_dir()
    if downloaded:
        directory = download(str(run), revision)
    elif revision is not None:
        raise UsageError(f"revision={revision!r}: {run} is a directory, not a model on the Hub")
    runs = [name for name in OBJECTIVES if (directory / name / BEST).is_file()]
    if runs and not (directory / CONFIG).exists():
        raise UsageError(f"{run} holds the runs {' and '.join(runs)}: name one of them, such as {directory / runs[0]}")
    if not (directory / CONFIG).exists():
        raise NotBuiltError(f"{run}: no run and no exported model (it has no {CONFIG})")
    if is_declared_run(directory):
        return open_declared(directory, own_towers=not downloaded)
    portable = read_portable(directory)
    config, _, weights = read_config(directory)
    return open_model(directory, located(config, directory), weights, portable)


def download(name: str, revision: str | None = None) -> Path:
    """The files of a model on the Hub, on this machine.

    Raises:
        NotBuiltError: there is no such model, or it is none of ours.
        TrainingError: it cannot be downloaded.
    """
    if not HUB_NAME.fullmatch(name):
        raise NotBuiltError(f"{name}: there is no such directory, and it is no name of a model on the Hub (owner/name)")
    import httpx
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=list(_WANTED)))
    except GatedRepoError as error:
        raise TrainingError(f"{name}: its owners ask for consent first; accept their terms on the Hub") from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise NotBuiltError(
            f"{name}: there is no such directory, and no such model on the Hub that this account may read "
            "(`hf auth login`, or HF_TOKEN=..., for a private one)"
        ) from error
    except RevisionNotFoundError as error:
        raise NotBuiltError(f"{name}: the model has no revision {revision}") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, httpx.HTTPError, OSError) as error:
        raise TrainingError(
            f"{name}: there is no such directory, and the Hub cannot be reached for a model of this name "
            f"({reason_of(error)}); run again with a network"
        ) from error
    if not (folder / MODEL).is_file():
        raise NotBuiltError(f"{name}: a model on the Hub, but not one that symile-m3 exported (it has no {MODEL})")
    return folder


def reason_of(error: BaseException) -> str:
    """The first cause of an error, in a few words."""
    while error.__cause__ is not None or error.__context__ is not None:
        error = error.__cause__ or error.__context__ or error
    return " ".join(str(error).split())[:160] or type(error).__name__
