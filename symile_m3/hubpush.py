"""Putting an exported folder on the Hugging Face Hub, or on the server that HF_ENDPOINT names."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

from symile_m3.errors import ServiceError, UsageError
from symile_m3.opening import HUB_NAME, reason_of

_LOGIN = "`hf auth login`, or HF_TOKEN=... with a token that may write"


def check_push(name: str) -> None:
    """Make sure, before any work, that the name is one and that there is a token.

    Raises:
        UsageError: the name is none.
        ServiceError: there is no token.
    """
    from huggingface_hub import get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise UsageError(f"--push {name}: no name of a model on the Hub; give OWNER/NAME") from error
    if not HUB_NAME.fullmatch(name):
        raise UsageError(f"--push {name}: give OWNER/NAME, the owner being you or an organisation of yours")
    if not get_token():
        raise ServiceError(f"--push {name}: no token of the Hugging Face Hub is at hand: {_LOGIN}")


def push_folder(folder: Path, name: str, *, private: bool = False, overwrite: bool = False, message: str = "") -> str:
    """Make a model on the Hub and put the files of a folder there, in one commit.

    Args:
        name: `owner/name`.
        private: whether only the owner may see it; of no account for one that exists.
        overwrite: whether to add a commit to a model that exists.
        message: of the commit.

    Returns:
        The address of the model.

    Raises:
        UsageError: a model of this name exists already.
        ServiceError: the Hub cannot be reached, or refuses.
    """
    import httpx
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    check_push(name)
    api = HfApi()
    made = False
    try:
        try:
            api.create_repo(name, private=private)
            made = True
        except HfHubHTTPError as error:
            if error.response.status_code != 409:
                raise
            if not overwrite:
                raise UsageError(
                    f"--push {name}: exists on the Hub; give --overwrite to add a commit to it, or another name"
                ) from error
        api.upload_folder(
            repo_id=name, folder_path=folder, commit_message=message or "Add the model", ignore_patterns=[".*"]
        )
    except (HfHubHTTPError, httpx.HTTPError, RuntimeError, OSError) as error:
        _refuse(error, name, folder, made)
    return f"{api.endpoint}/{name}"


def _refuse(error: BaseException, name: str, folder: Path, made: bool) -> NoReturn:
    """Say in one line what the Hub or the network had against it.

    Raises:
        ServiceError: always.
    """
    from huggingface_hub.errors import HfHubHTTPError

    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, HfHubHTTPError):
        cause = cause.__cause__ or cause.__context__
    again = f"; {folder} is written, so the same command" + (" with --overwrite" if made else "") + " goes on"
    if cause is None:
        raise ServiceError(f"--push {name}: the Hub cannot be reached ({reason_of(error)}){again}") from error
    status = cause.response.status_code
    said = (cause.server_message or "").strip() or cause.response.reason_phrase
    if status == 401:
        raise ServiceError(f"--push {name}: the Hub does not take the token (401: {said}): {_LOGIN}{again}") from error
    if status == 403:
        raise ServiceError(
            f"--push {name}: this account may not write there (403: {said}): the owner is somebody else, or the token "
            f"may only read{again}"
        ) from error
    raise ServiceError(f"--push {name}: the Hub refused ({status}: {said}){again}") from error
