"""Models from a Hugging Face hub: only the files that are needed, and no pickles.

The hub keeps several copies of a model beside each other (full precision, half, single files, other frameworks). Which
of them are wanted is decided by the same rule that reads a folder, on the hub's listing, before anything is fetched.
"""

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import torch
from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub import errors as hub_errors
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

from ssd1b.models.variants import choose

TEXTS = (".json", ".txt")
NO_CONNECTION: type[Exception] = vars(hub_errors)["HTTPError"]
"""Of whichever web client this version of the hub's package is built on."""


def fetch(repository: str, weights_of: Iterable[str], dtype: torch.dtype) -> Path:
    """Return the local folder of a hub id, with the configs of all parts and the weights of those named.

    Without a hub the copy of an earlier fetch is used.

    Raises:
        ValueError: no such repository, no permission, no hub and no earlier copy, or a part without safe weights.
    """
    if constants.HF_HUB_OFFLINE:
        return earlier(repository, "HF_HUB_OFFLINE forbids to ask one")
    try:
        names = [file.rfilename for file in HfApi().model_info(repository).siblings or ()]
        return Path(snapshot_download(repository, allow_patterns=wanted(names, weights_of, dtype, repository)))
    except GatedRepoError as error:
        raise ValueError(f"the hub's {repository} asks for its terms to be accepted: do so on its page, and log in "
                         f"with 'hf auth login'") from error  # fmt: skip
    except RepositoryNotFoundError as error:
        raise ValueError(f"{repository} is neither a file or folder here nor a model on the hub: check its name, or "
                         f"log in with 'hf auth login' if it is private") from error  # fmt: skip
    except (HfHubHTTPError, NO_CONNECTION, OSError) as error:
        return earlier(repository, f"it does not answer ({error})")


def wanted(names: Iterable[str], weights_of: Iterable[str], dtype: torch.dtype, repository: str) -> list[str]:
    """Return which of a repository's files are to be fetched. Pure.

    Raises:
        ValueError: not in diffusers layout, or a part without safe weights.
    """
    paths = [PurePosixPath(name) for name in names]
    if not any(path.name == "model_index.json" or path.parent.name == "unet" for path in paths):
        files = ", ".join(str(path) for path in paths if path.suffix == ".safetensors") or "none"
        raise ValueError(
            f"{repository} is not in diffusers layout; its .safetensors files: {files}. Download one and give its path"
        )
    chosen = [str(path) for path in paths if len(path.parts) <= 2 and path.suffix in TEXTS]
    for part in weights_of:
        inside = [path.name for path in paths if str(path.parent) == part]
        if inside:
            choice = choose(inside, dtype, f"{repository}/{part}")
            chosen += [f"{part}/{name}" for name in (choice.name, *choice.shards)]
    return sorted(set(chosen))


def earlier(repository: str, why: str) -> Path:
    """Return the folder of an earlier fetch."""
    try:
        return Path(snapshot_download(repository, local_files_only=True))
    except LocalEntryNotFoundError as error:
        raise ValueError(
            f"{repository} is no file or folder here, it is not among the models fetched before, and no hub can be "
            f"reached: {why}. Fetch it where there is one ('hf download {repository}'), or give a path"
        ) from error
