"""Files of the Hugging Face hub, at one commit. The hub announces the SHA-256 of large files: what came is compared with it.

HF_ENDPOINT names a mirror. The token is HF_TOKEN of the environment or none: a token that some other program stored is not sent.
"""

import os
from collections.abc import Callable
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from anchored.amounts import amount
from anchored.errors import AnchoredError, EnvironmentFailure, InputError
from anchored.fetch.bar import byte_bar
from anchored.fetch.sources import Hub
from anchored.fetch.transfer import Unreachable
from anchored.files import disk_failure

ENDPOINT = "https://huggingface.co"


class HubFile(NamedTuple):
    """A file of a repository as the hub announces it."""

    name: str
    size: int | None
    sha256: str | None


def hub_address(hub: Hub, revision: str, name: str) -> str:
    """Where a person finds a file."""
    return f"{ENDPOINT}/{'datasets/' if hub.type == 'dataset' else ''}{hub.repo}/blob/{revision}/{name}"


def list_files(hub: Hub, revision: str | None) -> tuple[str, list[HubFile]]:
    """The commit that `revision` (None: the newest) stands for, and the wanted files in order.

    Raises:
        InputError: no access, no such repository or commit, a pattern that no file matches, or more bytes than the table allows.
        Unreachable: the hub does not answer.
    """
    from huggingface_hub import HfApi

    def ask() -> Any:
        return HfApi(endpoint=_endpoint(), token=_token()).repo_info(
            hub.repo, repo_type=hub.type, revision=revision or "main", files_metadata=True
        )

    info = _said(hub, revision, ask)
    found = [HubFile(file.rfilename, file.size, file.lfs.sha256 if file.lfs else None) for file in info.siblings]
    for pattern in hub.files:
        if not any(fnmatchcase(file.name, pattern) for file in found):
            raise InputError(f"{hub.repo} has no file '{pattern}' at {info.sha}.", "the publisher moved it; give another revision.")
    wanted = sorted(file for file in found if any(fnmatchcase(file.name, pattern) for pattern in hub.files))
    total = sum(file.size or 0 for file in wanted)
    if total > hub.at_most:
        raise InputError(f"{hub.repo} announces {amount(total)}; more than {amount(hub.at_most)} is not believed.")
    outside = [file.name for file in wanted if file.name.startswith("/") or ".." in file.name.split("/")]
    if outside:
        raise InputError(f"{hub.repo} names '{outside[0]}', a path that leaves its folder.")
    return info.sha, wanted


def download(hub: Hub, revision: str, name: str, folder: Path) -> Path:
    """Brings a file to `folder`/`name`, continuing an earlier attempt; returns its path.

    Raises:
        InputError: no access, or no such file.
        Unreachable: the hub does not answer.
        EnvironmentFailure: the disk is full.
    """
    from huggingface_hub import hf_hub_download

    bar: Any = partial(_Bar, name)

    def ask() -> Any:
        return hf_hub_download(
            hub.repo, name, repo_type=hub.type, revision=revision, local_dir=folder, endpoint=_endpoint(), token=_token(),
            tqdm_class=bar,
        )  # fmt: skip

    return Path(_said(hub, revision, ask))


class _Bar:
    """What huggingface_hub uses of a tqdm bar, shown as every other progress of the project."""

    def __init__(self, file: str, *, total: int | None = None, initial: int = 0, **options: Any) -> None:
        # `desc` among the options can be the end of a signed address.
        self._done, self._bar = initial, byte_bar(file, total, initial)

    def __enter__(self) -> "_Bar":
        self._show = self._bar.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._bar.__exit__(*error)

    def update(self, count: int) -> None:
        """Adds bytes."""
        self._done += count
        self._show(self._done)


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT") or ENDPOINT


def _token() -> str | bool:
    return os.environ.get("HF_TOKEN") or False


def _said(hub: Hub, revision: str | None, ask: Callable[[], Any]) -> Any:
    """What `ask` returns, with the hub's errors in the user's words; their own texts may hold signed addresses."""
    from huggingface_hub import errors, logging

    logging.set_verbosity_error()  # its warnings on broken connections show whole addresses, which can be signed
    try:
        return ask()
    except errors.GatedRepoError:
        failure: AnchoredError = InputError(
            f"{hub.repo} asks for an accepted licence.",
            f"log in at {ENDPOINT}, accept it on the page of {hub.repo}, and set HF_TOKEN to a token that may read it.",
        )
    except errors.RevisionNotFoundError:
        failure = InputError(
            f"{hub.repo} has no commit {revision or 'main'}.",
            "the publisher rewrote the repository: look at its page"
            + ("; to trust its newest commit, remove the source's record in .fetched." if revision and not hub.revision else "."),
        )
    except errors.RepositoryNotFoundError:
        failure = InputError(
            f"{hub.repo} is not on the hub, or not for everybody.", "set HF_TOKEN to a token that may read it, or look at its page."
        )
    except errors.EntryNotFoundError as error:
        if isinstance(error, errors.LocalEntryNotFoundError):
            failure = _unreachable(hub)
        else:
            failure = InputError(f"{hub.repo} lacks a file that it listed.", "fetch it again.")
    except errors.HfHubHTTPError as error:
        code = error.response.status_code if error.response is not None else 0
        failure = (
            InputError(f"{hub.repo}: the hub refuses access ({code}).", "set HF_TOKEN to a token that may read it.")
            if code in (401, 403)
            else Unreachable(f"{hub.repo}: the hub answers {code or 'nothing'}.", "run the same command again later; it continues.")
        )
    except OSError as error:
        found = disk_failure(Path(hub.repo), error)
        failure = found if isinstance(found, EnvironmentFailure) else _unreachable(hub)
    except Exception as error:
        # The hub's HTTP library is its own affair: whatever it raises, its module tells that the network failed.
        if type(error).__module__.partition(".")[0] not in ("httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3"):
            raise
        failure = _unreachable(hub)
    raise failure


def _unreachable(hub: Hub) -> Unreachable:
    return Unreachable(
        f"{hub.repo}: the hub cannot be reached, or the connection was cut.",
        "check the network, HF_ENDPOINT and HF_HUB_OFFLINE, then run the same command again; it continues.",
    )
