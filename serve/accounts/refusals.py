"""What the accounts refuse, in the words and statuses of OpenAI's API where it has them."""

from serve.accounts.prices import credits_of
from serve.errors import RequestError


class RateLimitError(RequestError):
    """More than a minute allows."""

    retry_after_s: float | None = None
    """For the header retry-after; None where waiting does not help."""


def no_key() -> RequestError:
    return RequestError(
        "You didn't provide an API key: send it as `Authorization: Bearer KEY` (or x-api-key: KEY)",
        None,
        "missing_api_key",
        401,
    )


def wrong_key(prefix: str | None) -> RequestError:
    """One refusal for keys that are unknown, revoked and expired: which it was is nobody's business."""
    shown = f"sk-{prefix}-..." if prefix else "it has not the form of one"
    return RequestError(f"Incorrect API key ({shown}): unknown, revoked or expired", None, "invalid_api_key", 401)


def too_poor(name: str, price: int, balance: int) -> RequestError:
    return RequestError(
        f"This request costs {credits_of(price):g} credits and the account {name} has {credits_of(balance):g} left",
        None,
        "insufficient_credits",
        402,
        "insufficient_quota",
    )


def too_fast(name: str, what: str, limit: int, wait_s: float | None) -> RateLimitError:
    """what: "requests" or "images"."""
    advice = f"try again in {wait_s:.1f} s" if wait_s is not None else "ask for fewer at once"
    error = RateLimitError(
        f"The account {name} may ask for {limit} {what} per minute: {advice}", None, "rate_limit_exceeded", 429, what
    )
    error.retry_after_s = wait_s
    return error


def unreachable() -> RequestError:
    """Nothing is drawn that could not be charged."""
    return RequestError(
        "The accounts cannot be reached, so nothing can be charged; nothing was drawn for you. Try again soon",
        None,
        "service_unavailable",
        503,
        "server_error",
    )
