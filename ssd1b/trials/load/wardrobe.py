"""Which adapter was on offer when, with which weights: what answers of the soak test are held against."""

import threading
from dataclasses import dataclass, field
from math import inf
from pathlib import Path


@dataclass(frozen=True)
class Issue:
    """One file of an adapter, and from when until when it was on offer, seconds since 1970."""

    file: Path
    since: float
    until: float = inf


@dataclass
class Wardrobe:
    """The adapters of the run. An endpoint may be grace_s behind a change, either way."""

    grace_s: float
    issues: dict[str, list[Issue]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def hang(self, name: str, file: Path, now: float) -> None:
        """An adapter is on offer, with the weights of a file (a copy that stays) instead of those it had."""
        with self._lock:
            self.issues[name] = [*self._ended(name, now), Issue(file, now)]

    def take(self, name: str, now: float) -> None:
        """An adapter is on offer no longer."""
        with self._lock:
            self.issues[name] = self._ended(name, now)

    def _ended(self, name: str, now: float) -> list[Issue]:
        return [Issue(one.file, one.since, min(one.until, now)) for one in self.issues.get(name, [])]

    def drawable(self, name: str, began: float, ended: float) -> list[Path]:
        """Return the files with which a request may have been drawn; none if it must be refused."""
        issues = self.issues.get(name, [])
        return [one.file for one in issues if one.since <= ended and began <= one.until + self.grace_s]

    def refusable(self, name: str, began: float, ended: float) -> bool:
        """Whether a request may be refused: the adapter was not on offer at some time during it, or just before."""
        held = [one for one in self.issues.get(name, []) if one.since + self.grace_s <= began]
        since = max((one.since for one in held), default=inf)
        whole = [one for one in self.issues.get(name, []) if one.since >= since]
        return since == inf or whole[-1].until < ended

    def added(self) -> tuple[str, ...]:
        """Return the names that came after the beginning or that have gone, for callers to ask for."""
        with self._lock:
            return tuple(name for name, issues in self.issues.items() if issues[0].since or issues[-1].until < inf)
