"""The plan of a dataset behind a URL, which comes through the cache as its shards do."""

from __future__ import annotations

from symile_m3.errors import NotBuiltError, PlanError
from symile_m3.plan import Plan, load_plan
from symile_m3.shards import ShardCache
from symile_m3.shards.layout import META

_PLAN = f"{META}/plan.json"


def load_remote_plan(cache: ShardCache) -> Plan:
    """The plan of a dataset; fetched again where its copy in the cache is damaged.

    Raises:
        NotBuiltError: the dataset has none.
        PlanError: it is damaged where it comes from, or of another format.
        ShardError: it cannot be had, or the cache cannot be written.
    """
    for copy_is_new in (False, True):
        path = cache.file(_PLAN)
        if path is None:
            raise NotBuiltError(
                f"no plan in {cache.storage.root}: only datasets that `symile-m3 build` made can be used"
            )
        try:
            return load_plan(path)
        except PlanError as error:
            path.unlink(missing_ok=True)  # altered in the cache, perhaps
            if copy_is_new:
                raise PlanError(str(error).replace(str(path), f"{cache.storage.root}/{_PLAN}")) from error
    raise AssertionError  # the second round returns or raises
