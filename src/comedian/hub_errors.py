"""Errors of the Hugging Face Hub as one line with the remedy."""

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import httpx

from comedian.errors import InputError


def hub_url(repo_id: str, repo_type: str = "dataset") -> str:
    """Return the web page of a repository."""
    return f"{constants.ENDPOINT}/{constants.REPO_TYPES_URL_PREFIXES.get(repo_type, '')}{repo_id}"


@contextmanager
def hub_errors(repo_id: str, repo_type: str = "dataset") -> Iterator[None]:
    """Turn what the Hub's client raises in the block, about the repository named, into `InputError`."""
    try:
        yield
    except (HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, httpx.HTTPError) as error:
        raise InputError(_explain(error, hub_url(repo_id, repo_type))) from error


def _explain(error: Exception, url: str) -> str:
    match error:
        case GatedRepoError():
            return (
                f"`{url}` is gated and this login has no access: ask for it and accept its conditions on that page, "
                "log in with `hf auth login` as the account that has it, and run this again"
            )
        case RevisionNotFoundError():
            return f"`{url}` has no branch or commit {error.response.url.path.split('/')[-1]!r}"
        case RepositoryNotFoundError():
            return (
                f"there is no repository `{url}`, or it is private: log in with `hf auth login` as one who may see it"
            )
        case HfHubHTTPError() if error.response.status_code in (401, 403):
            reason = error.server_message or "no reason given"
            return f"the Hub refuses this login at `{url}` ({reason}): log in with `hf auth login`, or set HF_TOKEN"
        case HfHubHTTPError() if error.response.status_code in (409, 412):
            reason = error.server_message or "no reason given"
            return f"`{url}` was changed by somebody else meanwhile ({reason}); look at it and run this again"
        case HfHubHTTPError():
            reason = error.server_message or "no reason given"
            return f"the Hub answered {error.response.status_code} at `{url}` ({reason}); run this again later"
        case HFValidationError():
            return " ".join(str(error).split())
        case OfflineModeIsEnabled():
            return f"`{url}` is needed and offline mode is on: unset HF_HUB_OFFLINE"
        case _:
            return (
                f"`{constants.ENDPOINT}` cannot be reached ({error}): check the network connection and rerun the "
                "command to continue"
            )
