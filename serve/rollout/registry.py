"""Champion and canary as MLflow's model registry keeps them, and the moves that an operator makes.

The champion is an alias. So is the canary; its share is a tag of its version. Every version that became champion
remembers, as a tag, which one it replaced: that is the way back.
"""

from serve.rollout.target import Canary, Target
from ssd1b import tracking

CHAMPION, CANARY = "champion", "canary"
SHARE, REPLACED = "canary_share", tracking.REPLACED
"""Tags of a version."""


def read_target(model: str) -> Target:
    """Return what is to be served of a registered model.

    Raises:
        ValueError: it has no champion, or a canary whose share is none.
    """
    champion = tracking.version_of(model, CHAMPION).version
    try:
        canary = tracking.version_of(model, CANARY)
    except ValueError:
        return Target(champion)
    if canary.version == champion:
        return Target(champion)
    return Target(champion, Canary(canary.version, read_share(canary.tags.get(SHARE, ""), canary.uri)))


def read_share(text: str, of: str) -> float:
    """Return a share between 0 and 1.

    Raises:
        ValueError: it is not one; `of` is named.
    """
    try:
        share = float(text)
    except ValueError as error:
        raise ValueError(f"{of} is the canary and its tag {SHARE} is {text!r}: give a number from 0 to 1") from error
    if not 0 <= share <= 1:
        raise ValueError(f"{of}: a share of {share} is none: give a number from 0 to 1")
    return share


def start_canary(model: str, version: str, share: float) -> Target:
    """Try a version on a share of the requests.

    Raises:
        ValueError: no such version, no champion, or a share that is none.
    """
    read_share(str(share), f"models:/{model}/{version}")
    tracking.version_of(model, CHAMPION)
    tracking.tag(model, version, SHARE, str(share))  # before the alias, which servers follow at once
    tracking.set_alias(model, CANARY, version)
    return read_target(model)


def end_canary(model: str) -> Target:
    """Give all requests back to the champion."""
    tracking.drop_alias(model, CANARY)
    return read_target(model)


def promote(model: str, version: str | None = None) -> Target:
    """Make a version the champion, the canary unless another is named.

    Raises:
        ValueError: no such version, or none was named and there is no canary.
    """
    chosen = version or tracking.version_of(model, CANARY).version
    tracking.crown(model, CHAMPION, chosen)
    tracking.drop_alias(model, CANARY)
    return read_target(model)


def rollback(model: str) -> Target:
    """Make the version that the champion replaced champion again, and end a canary.

    Raises:
        ValueError: nobody knows which one that was.
    """
    champion = tracking.version_of(model, CHAMPION)
    before = champion.tags.get(REPLACED)
    if not before:
        raise ValueError(
            f"{champion.uri} does not say which version it replaced: name it with "
            f"`python -m serve.rollout promote --version N`"
        )
    if REPLACED not in tracking.find(f"models:/{model}/{before}").tags:
        tracking.tag(model, before, REPLACED, "")  # or else whoever watches would note the version we come from
    tracking.drop_alias(model, CANARY)
    tracking.set_alias(model, CHAMPION, before)
    return read_target(model)


def look(model: str, before: Target | None) -> Target:
    """Return what is to be served, and note the way back from a champion that other hands have made.

    Raises:
        ValueError: see `read_target`.
    """
    target = read_target(model)
    if before and target.champion != before.champion:
        uri = f"models:/{model}/{target.champion}"
        if REPLACED not in tracking.find(uri).tags:
            tracking.tag(model, target.champion, REPLACED, before.champion)
    return target
