"""Pretrained weights: where they are on this machine, fetched if need be, and their fingerprints."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path

from symile_m3.errors import MissingDependencyError, SymileM3Error, TrainingError, UsageError
from symile_m3.towers.spec import TowerSpec

_BLOCK = 1 << 22
_CLIP_CONFIG = "open_clip_config.json"
_CLIP_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin", "model.safetensors", "pytorch_model.bin")
_SAFE = ("model.safetensors", "model-*.safetensors", "model.safetensors.index.json")
_PICKLED = ("pytorch_model.bin", "pytorch_model-*.bin", "pytorch_model.bin.index.json")
_SMALL = ("*.json", "*.txt", "*.model")


@dataclass(frozen=True, kw_only=True, slots=True)
class Weights:
    """A pretrained model on this machine.

    Attributes:
        model: as its library calls it: the name of an architecture of open_clip, or a folder.
        checkpoint: the file of the weights, where `model` is not a folder.
        files: all that shape what the model computes.
        quick_gelu: whether the weights were trained with OpenAI's approximate GELU.
    """

    model: str
    checkpoint: Path | None
    files: tuple[Path, ...]
    quick_gelu: bool = False

    @property
    def nbytes(self) -> int:
        """Size of the files."""
        return sum(path.stat().st_size for path in self.files)

    def fingerprint(self) -> str:
        """Of the architecture and the content of the files."""
        known = "" if self.checkpoint is None else f"{self.model}|{self.quick_gelu}"
        parts = [known, *(f"{path.name}:{_digest(path)}" for path in self.files)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _digest(path: Path) -> str:
    real = path.resolve()
    if re.fullmatch(r"[0-9a-f]{64}", real.name):  # the Hub's cache names a file of weights by its SHA-256
        return real.name
    stat = real.stat()
    return _hashed(real, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=64)
def _hashed(path: Path, size: int, mtime_ns: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def find_weights(spec: TowerSpec) -> Weights:
    """The weights of a pretrained tower, downloaded where they are not on this machine yet.

    Raises:
        UsageError: there is no such model, tag, file or folder.
        TrainingError: the weights cannot be downloaded, or are of another kind of model.
        MissingDependencyError: the library for them is not installed.
    """
    if spec.kind == "clip":
        return _clip_weights(spec)
    require_transformers(spec)
    folder = _folder(spec, spec.name)
    _check_type(spec, folder, {"whisper": "whisper", "xlmr": "xlm-roberta"}[spec.kind])
    return _weights_in(spec, folder)


def require_transformers(spec: TowerSpec) -> None:
    """Make sure that the library of a tower is there.

    Raises:
        MissingDependencyError: it is not.
    """
    try:
        import transformers  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            f"{spec}: needs transformers, which is not installed; pip install 'symile-m3[paper]'"
        ) from error


def _weights_in(spec: TowerSpec, folder: Path) -> Weights:
    weights = [path for pattern in _SAFE for path in sorted(folder.glob(pattern))]
    weights = weights or [path for pattern in _PICKLED for path in sorted(folder.glob(pattern))]
    if not weights:
        raise UsageError(f"{spec}: no weights in {folder}; a folder written by save_pretrained has model.safetensors")
    small = [path for pattern in _SMALL for path in sorted(folder.glob(pattern)) if path not in weights]
    return Weights(model=str(folder), checkpoint=None, files=(*weights, *small))


def _check_type(spec: TowerSpec, folder: Path, wanted: str) -> None:
    path = folder / "config.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise UsageError(
            f"{spec}: {path} cannot be read ({error}); give a folder written by save_pretrained"
        ) from error
    if found != wanted:
        raise TrainingError(f"{spec}: {folder} holds a model of type {found}; this tower takes {wanted}")


def _folder(spec: TowerSpec, name: str, weights: Iterable[str] = _SAFE) -> Path:
    """The folder of a model: itself, or the copy of the Hub's on this machine, made if need be."""
    local = Path(name).expanduser()
    if local.is_dir():
        return local
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        raise UsageError(f"{spec}: there is no folder {name}; give one, or the name of a model on the Hugging Face Hub")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        folder = Path(snapshot_download(name, allow_patterns=[*_SMALL, *weights]))
        if weights is _SAFE and not any(any(folder.glob(pattern)) for pattern in _SAFE):
            folder = Path(snapshot_download(name, allow_patterns=[*_SMALL, *_PICKLED]))
    except GatedRepoError as error:
        raise TrainingError(f"{spec}: its owners ask for consent first; accept their terms on the Hub") from error
    except RepositoryNotFoundError as error:
        raise UsageError(f"{spec}: no folder and no model on the Hugging Face Hub is called {name}") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise _unreachable(spec, error) from error
    return folder


def _unreachable(spec: TowerSpec, error: BaseException) -> SymileM3Error:
    """The weights are elsewhere and cannot be had: the reason in a few words."""
    while error.__cause__ is not None or error.__context__ is not None:
        error = error.__cause__ or error.__context__ or error
    reason = " ".join(str(error).split())[:160] or type(error).__name__
    return TrainingError(
        f"{spec}: its weights are not on this machine and cannot be downloaded ({reason}); "
        "run again with a network, or name a local checkpoint"
    )


def _clip_weights(spec: TowerSpec) -> Weights:
    import open_clip

    model, at, tag = spec.name.partition("@")
    if not at:
        if model.startswith("hf-hub:"):
            return _clip_folder(spec, _folder(spec, model.removeprefix("hf-hub:"), _CLIP_WEIGHTS))
        if Path(model).expanduser().is_dir():
            return _clip_folder(spec, Path(model).expanduser())
    if not at and model.startswith(("/", ".", "~")):
        raise UsageError(
            f"{spec}: there is no folder {model}; a file of weights goes behind its model: clip:MODEL@FILE"
        )
    model = model.replace("/", "-")
    if model not in open_clip.list_models():
        raise UsageError(f"{spec}: open_clip knows no model {model}{_near(model, open_clip.list_models())}")
    tags = open_clip.list_pretrained_tags_by_model(model)
    if not at:
        raise UsageError(f"{spec}: give a tag, as in clip:{model}@{tags[0] if tags else 'FILE'}{_near('', tags)}")
    known = open_clip.get_pretrained_cfg(model, tag)
    local = Path(tag).expanduser()
    if not known and not local.is_file():
        raise UsageError(f"{spec}: {model} has no pretrained tag {tag}, nor is it a file{_near(tag, tags)}")
    if not known:
        return Weights(model=model, checkpoint=local, files=(local,))
    try:
        checkpoint = Path(open_clip.download_pretrained(known))
    except Exception as error:  # urllib's, the Hub's and open_clip's own
        raise _unreachable(spec, error) from error
    return Weights(model=model, checkpoint=checkpoint, files=(checkpoint,), quick_gelu=bool(known.get("quick_gelu")))


def _clip_folder(spec: TowerSpec, folder: Path) -> Weights:
    weights = [folder / name for name in _CLIP_WEIGHTS if (folder / name).is_file()]
    if not (folder / _CLIP_CONFIG).is_file() or not weights:
        raise UsageError(f"{spec}: {folder} lacks {_CLIP_CONFIG} or {_CLIP_WEIGHTS[0]}, as open_clip writes them")
    small = [path for pattern in _SMALL for path in sorted(folder.glob(pattern))]
    return Weights(model=f"local-dir:{folder}", checkpoint=None, files=(weights[0], *small))


def _near(name: str, known: Iterable[str]) -> str:
    near = get_close_matches(name, list(known), n=4, cutoff=0.4) or list(known)[:8]
    return f"; near: {', '.join(near)}" if name and near else f"; known: {', '.join(near)}" if near else ""
