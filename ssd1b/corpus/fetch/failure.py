"""Why a URL gave no picture: a reason by name, and whether asking again may help."""

from dataclasses import dataclass

from ssd1b.corpus.reasons import Reason


@dataclass(frozen=True, kw_only=True)
class Failure:
    """One URL, or one request, that came to nothing."""

    reason: Reason
    detail: str = ""
    retry: bool = False
    """The same request may succeed in a while."""
    retry_after_s: float | None = None
    """What the server asked to wait."""


REMEMBERED = frozenset(
    {
        Reason.URL_GONE,
        Reason.URL_FORBIDDEN,
        Reason.URL_REFUSED,
        Reason.URL_TOO_LARGE,
        Reason.URL_NOT_AN_IMAGE,
        Reason.REDIRECT_REFUSED,
        Reason.NOAI,
    }
)
"""What a rerun does not ask again. The others pass with time, or cost no request to find out anew."""

BREAKING = frozenset(
    {
        Reason.URL_DNS,
        Reason.URL_TIMEOUT,
        Reason.URL_UNREACHABLE,
        Reason.URL_TLS,
        Reason.URL_SERVER_ERROR,
        Reason.URL_RATE_LIMITED,
    }
)
"""What speaks against the host rather than the URL."""
