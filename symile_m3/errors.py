"""The exceptions of symile_m3, all rooted at `SymileM3Error`.

    SymileM3Error
    ├── UsageError                  an argument out of range or unknown; the CLI exits 2
    ├── LexiconError                names missing, clashing, or not to be had
    ├── SourceError                 an image, clip or translation that a source cannot give as asked
    │   ├── UnusableError           one image or clip, which a build leaves out and counts
    │   └── ServiceError            a web service that has stopped answering; nothing else is tried
    ├── PlanError                   a dataset on disk belongs to another plan
    ├── BuildError                  shards could not be made; the others have been
    ├── NotBuiltError               a dataset or run that must exist first does not
    ├── TrainingError               a run cannot start, resume or go on
    ├── MissingDependencyError      an optional package is not installed
    └── ShardError                  (symile_m3.shards) a shard or its index is missing or malformed
        └── DamagedSampleError      (symile_m3.shards) one sample cannot be read

A message is one line: what is wrong, where, and what to do. Everything but `UsageError` exits 1.
"""

from __future__ import annotations

from symile_m3.shards.errors import DamagedSampleError, ShardError, SymileM3Error

__all__ = [
    "BuildError",
    "DamagedSampleError",
    "LexiconError",
    "MissingDependencyError",
    "NotBuiltError",
    "PlanError",
    "ServiceError",
    "ShardError",
    "SourceError",
    "SymileM3Error",
    "TrainingError",
    "UnusableError",
    "UsageError",
]


class UsageError(SymileM3Error):
    """An argument is unknown or out of range."""


class LexiconError(SymileM3Error):
    """A class has no name in a language, or names clash."""


class SourceError(SymileM3Error):
    """A source of images, speech or names cannot give what was asked of it."""


class UnusableError(SourceError):
    """One image or clip is not what it should be, such as a file that is no image, and will never be. A build leaves it
    out, counts it, and goes on as long as they are few."""


class ServiceError(SourceError):
    """A web service has stopped answering: work that needs it stops at once, and can go on later."""


class PlanError(SymileM3Error):
    """The directory holds a dataset of another plan."""


class BuildError(SymileM3Error):
    """Some shards could not be made, after all attempts; the others have been."""


class NotBuiltError(SymileM3Error):
    """A dataset or a run that this step needs does not exist yet."""


class TrainingError(SymileM3Error):
    """A run cannot start, resume or go on."""


class MissingDependencyError(SymileM3Error):
    """An optional package is not installed."""
