"""A folder onto the Hub, by huggingface_hub.

push_folder(Path("my-model"), "me/my-model", private=True)     # https://huggingface.co/me/my-model
"""

from __future__ import annotations

import re
from pathlib import Path

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def check_pushable(name: str) -> None:
    """Refuse before anything is made what the Hub would refuse at the end.

    Raises:
        ValueError: the name is none for a repository, or there is no token to log in with.
    """
    from huggingface_hub import get_token

    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name for a repository on the Hub: write owner/name")
    if get_token() is None:
        raise ValueError("there is no token for the Hub: log in with 'hf auth login', or set HF_TOKEN")


def push_folder(folder: Path, name: str, private: bool = False) -> str:
    """Upload a folder as a model repository, which is made where it is not there; gives its address.

    Args:
        folder: what ``export_model`` made.
        name: of the repository, ``owner/name``.
        private: who may see a repository that is made here; one that is there stays as it is.

    Raises:
        ValueError: the Hub cannot be reached or refuses; the folder stays as it is.
    """
    from huggingface_hub import HfApi

    api = HfApi(library_name="metro-t0")
    try:
        address = api.create_repo(name, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=address.repo_id, folder_path=folder, commit_message="Made by metro-t0 convert"
        )
    except Exception as error:  # the Hub's client, its HTTP library and the network each raise their own
        raise ValueError(
            f"{name} could not be uploaded: {_reason(error, name)}; the folder is whole, upload it later with: "
            f"hf upload {name} {folder}"
        ) from error
    return str(address)


def _reason(error: Exception, name: str) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status == 401:
        return "the Hub does not know this token (log in with 'hf auth login')"
    if status == 403:
        return f"this token may not write to {name}"
    if status is None:
        return f"the Hub cannot be reached ({_first_line(error)})"
    return f"the Hub answers {status}: {_first_line(error)}"


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
