"""What GET /status shows, made of what every replica tells of itself."""

from collections import Counter
from collections.abc import Sequence
from typing import Any


def board_of(model: str, replicas: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the board: the version that most replicas serve, and the canary that most know of.

    While a champion changes over they are not all of one mind; each replica's own version stands in its report.
    """
    versions = Counter(replica["version"] for replica in replicas)
    canaries = Counter(tuple((replica.get("canary") or {}).items()) for replica in replicas)
    return {
        "model": model,
        "state": "up" if replicas else "no replica runs: the next request wakes one, or waits for one that starts",
        "version": versions.most_common(1)[0][0] if versions else None,
        "canary": dict(canaries.most_common(1)[0][0]) or None if canaries else None,
        "replicas": list(replicas),
    }
