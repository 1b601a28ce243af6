"""Opening a data set through `datasets`: its files, its columns, its classes; and what is said where that fails."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path
from typing import Any, NoReturn

from symile_m3.errors import SourceError
from symile_m3.images.hubstream import collected_between_requests
from symile_m3.images.huggingface import HUB, HubSpec, Opened, local_licence

_FILES = {".parquet": "parquet", ".tar": "webdataset", ".arrow": "arrow"}
_ACCESS = "with an account that may read it, `hf auth login` or HF_TOKEN=..."


@collected_between_requests()
def open_dataset(where: HubSpec, spec: str) -> Opened:
    """Open a data set as far as its files and features.

    Args:
        spec: what `--images` said, for messages.

    Raises:
        SourceError: it is not there, may not be read, or has no column of images or of labels.
    """
    import datasets

    datasets.disable_progress_bars()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its warnings of what it tries again
    path = Path(where.name)
    if where.local and path.is_file() and path.suffix not in _FILES:
        raise SourceError(
            f"--images {spec}: {path} is a file of no known kind; give a directory, or {' or '.join(_FILES)}"
        )
    try:
        if where.local and path.is_file():
            builder = datasets.load_dataset_builder(_FILES[path.suffix], data_files=str(path))
        else:
            builder = datasets.load_dataset_builder(where.name, where.config or None, revision=where.revision or None)
    except Exception as error:  # of three libraries and their transport
        refuse(error, where, spec)
    splits = {str(name): tuple(sorted(map(str, files))) for name, files in (builder.config.data_files or {}).items()}
    split = where.split or ("train" if "train" in splits else "")
    if not split and len(splits) == 1:
        split = next(iter(splits))
    if split not in splits:
        known = ", ".join(splits) or "none"
        raise SourceError(f"--images {spec}: no split {split or 'train'}; choose with split=, of {known}")
    files = splits[split]
    parquet = all(file.endswith(".parquet") for file in files)
    try:
        features = _features(builder, split, files, parquet)
    except Exception as error:
        refuse(error, where, spec)
    image = _column(features, where.image, lambda feature: isinstance(feature, datasets.Image), ("image", "img", "jpg"))
    label = _column(features, where.label, lambda feature: isinstance(feature, datasets.ClassLabel), ("label", "cls"))
    for option, name in (("image", image), ("label", label)):
        if not name:
            raise SourceError(
                f"--images {spec}: no column of {option}s can be told; choose with {option}=, of " + ", ".join(features)
            )
    feature = features[label]
    base = _base(files, where)
    return Opened(
        files=files,
        base=base,
        parquet=parquet,
        image=image,
        label=label,
        names=tuple(feature.names) if isinstance(feature, datasets.ClassLabel) else (),
        builder=builder,
        split=split,
        licence=_licence(where),
        source=_source(where, base),
    )


def _features(builder: Any, split: str, files: tuple[str, ...], parquet: bool) -> Any:
    """Column -> feature."""
    if builder.info.features:
        return builder.info.features
    import datasets

    if parquet:
        from symile_m3.images.hubparquet import open_file

        return datasets.Features.from_arrow_schema(open_file(files[0]).schema_arrow)
    stream = builder.as_streaming_dataset(split)
    return stream.features or stream._resolve_features().features


def _column(features: Any, chosen: str, fits: Any, usual: tuple[str, ...]) -> str:
    """The column that was chosen, the first that fits, or one with a usual name; empty where there is none."""
    if chosen:
        return chosen if chosen in features else ""
    fitting = [name for name, feature in features.items() if fits(feature)]
    named = [name for name in usual if name in features]
    return next((name for name in named if name in fitting), (fitting + named + [""])[0])


def _base(files: tuple[str, ...], where: HubSpec) -> str:
    if where.local:
        path = Path(where.name)
        return f"{path if path.is_dir() else path.parent}/"
    first = files[0]
    if first.startswith("hf://datasets/") and "@" in first:
        revision, _, _ = first.partition("@")[2].partition("/")
        return f"{first.partition('@')[0]}@{revision}/"
    return first.rpartition("/")[0] + "/"


def _source(where: HubSpec, base: str) -> str:
    """`hf:NAME@REVISION`; of a local data set the name of its directory or file."""
    if where.local:
        return f"hf:{Path(where.name).name}"
    revision = base.partition("@")[2].strip("/")[:12]
    return f"hf:{where.name}@{revision}" if revision else f"hf:{where.name}"


def _licence(where: HubSpec) -> str:
    """What the data set's card says; where it does not, the address of its page."""
    if where.local:
        return local_licence(Path(where.name))
    from huggingface_hub import HfApi

    licence: object = None
    with contextlib.suppress(Exception):  # a card that cannot be read says nothing
        card = HfApi().dataset_info(where.name, revision=where.revision or None).card_data
        licence = card.get("license") if card is not None else None
    if isinstance(licence, list):
        licence = ", ".join(map(str, licence))
    if not licence or licence == "other":
        return f"as its page says: {HUB}/datasets/{where.name}"
    return str(licence)


def _is_transport(error: BaseException) -> bool:
    """Whether an error is one of the way to the Hub. After one, huggingface_hub may try a client that it has closed."""
    import httpx

    return isinstance(error, httpx.TransportError | ConnectionError | TimeoutError) or (
        isinstance(error, RuntimeError) and "client has been closed" in str(error)
    )


def refuse(error: Exception, where: HubSpec, spec: str) -> NoReturn:
    """Say in one line why a data set cannot be read, and what to do.

    Raises:
        SourceError: always.
    """
    import datasets
    from huggingface_hub.errors import GatedRepoError

    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None and len(causes) < 10:
        causes.append(cause)
    words = " ".join(str(error).split())[:300] or type(error).__name__
    page = f"{HUB}/datasets/{where.name}"
    # `datasets` gives the words of the error that says so, and drops the error.
    if any(isinstance(cause, GatedRepoError) for cause in causes) or "gated dataset" in words:
        message = f"gated: accept its terms at {page}, then log in {_ACCESS}"
    elif isinstance(error, datasets.exceptions.DatasetNotFoundError) and not where.revision:
        message = f"there is no such data set on the Hub, or it is private: check {page}, and log in {_ACCESS}"
    elif not where.local and any(_is_transport(cause) for cause in causes):
        why = "" if "client has been closed" in words else f" ({words})"
        message = f"the Hub cannot be reached{why}; try again, or give the path of a copy"
    else:
        message = f"{words} (choose with config=, split=, revision=, image= or label=, separated by commas)"
    raise SourceError(f"--images {spec}: {message}") from error
