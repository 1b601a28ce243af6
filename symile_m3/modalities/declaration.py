"""What a user declares: where the samples are, what modalities they have, and how to train on them.

    [data]
    train = "shards/train-*.tar"        # paths are relative to the file
    val = "shards/val-*.tar"
    test = "shards/test-*.tar"
    label = "json:class"                # leave it out where only the own sample is right

    [modalities.xray]
    member = "xray.npy"
    shape = [3, 320, 320]
    tower = "resnet50"

    [train]
    dim = 512
    steps = 1000

See docs/MODALITIES.md for every key.
"""

from __future__ import annotations

import re
import tomllib
import types
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from symile_m3.errors import UsageError
from symile_m3.recipe import LoopConfig
from symile_m3.shards import is_url

T = TypeVar("T")

KINDS = {
    "array": ("npy",),
    "image": ("jpg", "jpeg", "png", "webp"),
    "audio": ("flac", "wav", "ogg", "opus", "mp3"),
    "text": ("txt",),
}
"""What a member is, by the last part of its name."""
TOWERS = {
    "resnet18": ("array", "image"),
    "resnet50": ("array", "image"),
    "resnet18-1d": ("array",),
    "conv-image": ("array", "image"),
    "conv-signal": ("array",),
    "conv-audio": ("audio",),
    "mlp": ("array",),
    "embedding-bag": ("text",),
    "frozen:efficientnet-lite0": ("image",),
}
"""The towers that come with the package, and what they take."""
_NAME = re.compile(r"[a-z][a-z0-9_-]*")
_FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModalityConfig:
    """One modality.

    Attributes:
        name: how it is called.
        member: of each sample that holds it, such as `xray.npy`, or `json:FIELD`; several arrays are joined end to end.
        tower: one of `TOWERS`, or `package.module:factory`.
        shape: of an array without the batch: (C, H, W) of an image, (T, C) or (1, T, C) of a signal of T times and
            C leads; images are resized to (3, H, W).
        dtype: that arrays must have; any where it is empty.
        mean, std: taken from arrays, and what they are then divided by.
        hidden: widths of the hidden layers of `mlp`.
        seconds: of a clip that `conv-audio` takes; what is longer is cut, what is shorter ends early.
        buckets: rows that `embedding-bag` hashes character n-grams to.
        missing: whether a sample without it is one that lacks it; otherwise it is an error.
    """

    name: str
    member: tuple[str, ...]
    tower: str
    shape: tuple[int, ...] = ()
    dtype: str = ""
    mean: float = 0.0
    std: float = 1.0
    hidden: tuple[int, ...] = (256, 1024)
    seconds: float = 2.0
    buckets: int = 4096
    missing: bool = False

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"{self.name!r}: give a name of small letters, digits, - and _")
        if self.name in ("k", "retrieve"):
            raise ValueError(f"{self.name!r}: an argument in Python has this name; give another")
        if not self.member or len(set(self.member)) < len(self.member):
            raise ValueError("member: give the name of a member, or several different ones")
        for one in self.member:
            if (one.startswith("json:") and one != "json:") or any(_suffix(one) in of for of in KINDS.values()):
                continue
            known = ", ".join(suffix for of in KINDS.values() for suffix in of)
            raise ValueError(f"member {one}: its name must end in one of {known}, or be json:FIELD")
        if self.tower not in TOWERS and not _FACTORY.fullmatch(self.tower):
            raise ValueError(
                f"tower {self.tower}: unknown; known: {', '.join(TOWERS)}, or a factory as package.module:name"
            )
        if len(self.member) > 1 and self.kind != "array":
            raise ValueError("member: only arrays can be joined")
        if self.tower in TOWERS and self.kind not in TOWERS[self.tower]:
            raise ValueError(f"tower {self.tower} takes no {self.kind}, which {self.member[0]} is")
        if self.kind == "array" and (not self.shape or min(self.shape) < 1):
            raise ValueError("shape: give that of one array, without the batch")
        self._check_shape()
        if min(self.std, self.seconds) <= 0 or self.buckets < 1 or not self.hidden or min(self.hidden) < 1:
            raise ValueError("std, seconds, buckets and hidden must be positive")

    def _check_shape(self) -> None:
        sides = len(self.shape)
        if self.kind == "image":
            if self.shape and (sides != 3 or self.shape[0] != 3):
                raise ValueError(f"shape {list(self.shape)}: images become [3, height, width]")
        elif self.tower in ("resnet18", "resnet50", "conv-image") and sides != 3:
            raise ValueError(f"shape {list(self.shape)}: tower {self.tower} takes [channels, height, width]")
        if self.tower in ("resnet18-1d", "conv-signal") and not (sides == 2 or (sides == 3 and self.shape[0] == 1)):
            raise ValueError(f"shape {list(self.shape)}: tower {self.tower} takes [times, leads] or [1, times, leads]")

    @property
    def kind(self) -> str:
        """What its members are: array, image, audio or text."""
        if self.member[0].startswith("json:"):
            return "text" if self.tower == "embedding-bag" else "array"
        return next(kind for kind, suffixes in KINDS.items() if _suffix(self.member[0]) in suffixes)

    @property
    def fields(self) -> tuple[str, ...]:
        """The members to read."""
        return tuple(dict.fromkeys("json" if one.startswith("json:") else one for one in self.member))


def _suffix(member: str) -> str:
    return member.rpartition(".")[2]


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """Where samples are.

    Attributes:
        train, val, test: the tars of each split; see `symile_m3.shards.ForeignReader`.
        all: tars of all splits together, in place of these, which are then told apart by a hash of each key.
        split: shares of train, val and test in these.
        arrays: a directory of arrays in place of tars; see `symile_m3.modalities.arrays`.
        label: `json:FIELD`, or a member that is text: candidates with the label of the query are right; where it is
            empty, only the own sample is.
        candidates: of a query: itself and others drawn by seed, this many; 0 for all samples of the split.
        retrieve: what validation retrieves from all else; by default the first modality.
        workers: processes that read and prepare training samples; 0 is a thread.
    """

    train: tuple[str, ...] = ()
    val: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    all: tuple[str, ...] = ()
    split: tuple[float, ...] = (0.8, 0.1, 0.1)
    arrays: str = ""
    label: str = ""
    candidates: int = 0
    retrieve: str = ""
    workers: int = 0

    def __post_init__(self) -> None:
        given = [bool(self.train and self.val and self.test), bool(self.all), bool(self.arrays)]
        if sum(given) != 1 or (not given[0] and (self.train or self.val or self.test)):
            raise ValueError("give train, val and test, or all, or arrays")
        if len(self.split) != 3 or min(self.split) <= 0 or abs(sum(self.split) - 1) > 1e-6:
            raise ValueError(f"split {list(self.split)}: give three positive shares that add up to 1")
        if self.candidates < 0 or self.candidates == 1:
            raise ValueError(f"candidates {self.candidates}: at least 2, or 0 for all samples")
        if self.label and self.arrays:
            raise ValueError(f"label {self.label}: a directory of arrays has none; leave it out")
        if self.workers < 0:
            raise ValueError(f"workers {self.workers}: at least 0")
        if self.label and not (
            (self.label.startswith("json:") and self.label != "json:") or _suffix(self.label) in ("txt", "cls")
        ):
            raise ValueError(f"label {self.label}: give json:FIELD, or a member that ends in txt or cls")

    @property
    def label_field(self) -> str:
        """The member that holds the label."""
        return "json" if self.label.startswith("json:") else self.label

    def beside(self, folder: Path) -> DataConfig:
        """The same with paths that are not relative, or were relative to the folder."""

        def placed(text: str) -> str:
            return text if not text or is_url(text) else str(folder.absolute() / text)

        names = ("train", "val", "test", "all")
        tars: dict[str, Any] = {name: tuple(placed(one) for one in getattr(self, name)) for name in names}
        return replace(self, arrays=placed(self.arrays), **tars)


@dataclass(frozen=True, kw_only=True, slots=True)
class DeclaredConfig(LoopConfig):
    """A recipe for training on declared modalities; saved with every run.

    Attributes:
        dim: D of the representations.
        symile_log_scale: logarithm of the scale at the beginning, of symile, sigmoid, gated and soft.
        log_scale_offset: added to the logarithm of the objective's scale at the beginning, whichever objective it is.
        modalities: at least two.
    """

    steps: int = 1000
    batch_size: int = 256
    lr: float = 1e-3
    dim: int = 512
    symile_log_scale: float = -4.0
    log_scale_offset: float = 0.0
    modalities: tuple[ModalityConfig, ...]

    def __post_init__(self) -> None:
        names = self.modality_names
        if len(names) < 2:
            raise UsageError(f"{len(names)} modalities: contrast needs at least two")
        LoopConfig.__post_init__(self)
        if self.dim < 1:
            raise UsageError(f"dim {self.dim}: at least 1")
        if not -20 <= self.log_scale_offset <= 20:
            raise UsageError(f"log_scale_offset {self.log_scale_offset}: from -20 to 20")
        if self.soft_targets == "texts" and all(modality.kind != "text" for modality in self.modalities):
            raise UsageError("soft_targets texts: no modality is a text; give labels")

    @property
    def modality_names(self) -> tuple[str, ...]:
        """Those that are declared."""
        return tuple(modality.name for modality in self.modalities)

    @property
    def learned(self) -> frozenset[str]:
        """The modalities whose towers learn what stands for a missing one."""
        hidden = self.missing
        return frozenset(one.name for one in self.modalities if one.missing or hidden[one.name])


@dataclass(frozen=True, kw_only=True, slots=True)
class Declaration:
    """Everything that is declared."""

    data: DataConfig
    config: DeclaredConfig

    def __post_init__(self) -> None:
        retrieve = self.data.retrieve
        if retrieve and retrieve not in self.config.modality_names:
            raise UsageError(f"retrieve {retrieve}: no such modality; known: {', '.join(self.config.modality_names)}")


def read_declaration(path: Path) -> Declaration:
    """The declaration in a TOML file.

    Raises:
        UsageError: there is no such file, or it declares what cannot be.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}; give a TOML file that declares modalities") from error
    except ValueError as error:
        raise UsageError(f"{path}: not TOML: {error}") from error
    unknown = sorted(set(tables) - {"data", "modalities", "train"})
    if unknown:
        raise UsageError(f"{path}: [{unknown[0]}] is no table of a declaration; known: data, modalities, train")
    for name in ("data", "modalities"):
        if not isinstance(tables.get(name), dict):
            raise UsageError(f"{path}: has no table [{name}]")
    modalities = []
    for name, table in tables["modalities"].items():
        where = f"{path}: [modalities.{name}]"
        if not isinstance(table, dict):
            raise UsageError(f"{where} must be a table")
        modalities.append(filled(ModalityConfig, {"name": name, **table}, where))
    data = filled(DataConfig, tables["data"], f"{path}: [data]")
    table = dict(tables.get("train", {}))
    if "epochs" in table:
        table.setdefault("steps", 0)
    config = filled(DeclaredConfig, {**table, "modalities": tuple(modalities)}, f"{path}: [train]")
    try:
        return Declaration(data=data.beside(path.parent), config=config)
    except UsageError as error:
        raise UsageError(f"{path}: [data] {error}") from error


def filled(cls: type[T], table: Mapping[str, Any], where: str) -> T:
    """A configuration from the values of a table, each of the type that it must have.

    Raises:
        UsageError: an unknown key, a missing one, a value of another type, or one that is refused.
    """
    hints = get_type_hints(cls)
    names = [item.name for item in fields(cls)]  # type: ignore[arg-type]
    for key in table:
        if key not in names:
            raise UsageError(f"{where} has no setting {key}; known: {', '.join(names)}")
    try:
        return cls(**{key: _typed(value, hints[key], key) for key, value in table.items()})
    except TypeError as error:  # what has no default
        lacking = re.findall(r"'(\w+)'", str(error))
        raise UsageError(f"{where} lacks {' and '.join(lacking) or error}") from error
    except (ValueError, UsageError) as error:
        raise UsageError(f"{where} {error}") from error


def _typed(value: Any, hint: Any, key: str) -> Any:
    """The value as the type of a field, where it is one of that type."""
    if get_origin(hint) is tuple:
        element = get_args(hint)[0]
        if isinstance(value, tuple):
            return value
        return tuple(_typed(one, element, key) for one in (value if isinstance(value, list) else [value]))
    if isinstance(hint, types.UnionType):  # the probabilities of missing ones
        if isinstance(value, dict):
            return {name: _typed(p, float, key) for name, p in value.items()}
        return _typed(value, float, key)
    wanted = (int, float) if hint is float else (hint,)
    if not isinstance(value, wanted) or (isinstance(value, bool) and hint is not bool):
        raise ValueError(f"{key} {value!r}: give {'a number' if hint in (int, float) else f'a {hint.__name__}'}")
    return hint(value)
