"""Callers of the fault drill: each asks for one picture at a time, and again after an error, as SDKs do."""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx
import numpy as np
from numpy.typing import NDArray

from ssd1b.trials.load.driver import ROUTE, pixels
from ssd1b.trials.load.toll import Call, Outcome
from ssd1b.trials.load.trace import Ask

AGAIN = (408, 429, 500, 502, 503, 504)
"""Statuses after which one asks again."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 8.0
"""Pauses double; both are those of the openai package."""


@dataclass(frozen=True, kw_only=True)
class Caller:
    """One account, its key, and how it asks."""

    account: str
    key: str
    retries: int
    patience_s: float

    def headers(self, ask: Ask) -> Mapping[str, str]:
        """Return who asks, and that it is one request however often it is sent: no two have the same seed."""
        return {"authorization": f"Bearer {self.key}", "idempotency-key": str(ask.seed)}

    def call(self, http: httpx.Client, ask: Ask) -> tuple[Call, NDArray[np.uint8] | None]:
        """Ask until there is a picture, a refusal, no try left, or no answer in time; return the pixels_HW3 too."""
        began, errors = time.time(), list[str]()
        pause_s, drawn_HW3 = FIRST_PAUSE_S, None
        outcome: Outcome = "failed"
        for attempt in range(self.retries + 1):
            if attempt:
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            try:
                response = http.post(ROUTE, json=ask.body(), headers=self.headers(ask), timeout=self.patience_s)
            except httpx.ReadTimeout:
                outcome = "lost"
                break
            except httpx.TransportError as error:
                errors.append(type(error).__name__)
                continue
            if response.status_code == 200:
                outcome, drawn_HW3 = "answered", pixels(response.json())
                break
            errors.append(f"{response.status_code} {response.text[:120]}")
            if response.status_code not in AGAIN:
                break
        call = Call(account=self.account, seed=ask.seed, began=began, ended=time.time(), errors=tuple(errors),
                    outcome=outcome)  # fmt: skip
        return call, drawn_HW3


@dataclass
class Load:
    """Callers at work, each on a thread."""

    url: str
    over: threading.Event = field(default_factory=threading.Event)
    calls: list[tuple[Call, Ask]] = field(default_factory=list)
    pictures: dict[int, NDArray[np.uint8]] = field(default_factory=dict)
    """By seed, of which no two requests have the same."""

    def work(self, caller: Caller, asks: Iterator[Ask]) -> None:
        with httpx.Client(base_url=self.url) as http:
            while not self.over.is_set():
                ask = next(asks)
                call, drawn_HW3 = caller.call(http, ask)
                if drawn_HW3 is not None:
                    self.pictures[ask.seed] = drawn_HW3
                self.calls.append((call, ask))

    def since(self, moment: float) -> set[str]:
        """Return the accounts that were given a picture they asked for after a moment."""
        return {call.account for call, _ in list(self.calls) if call.outcome == "answered" and call.began > moment}


@contextmanager
def calling(url: str, callers: Mapping[Caller, Iterator[Ask]]) -> Iterator[Load]:
    """Within it they call; on the way out each waits for what it asked for last."""
    load = Load(url)
    threads = [threading.Thread(target=load.work, args=pair) for pair in callers.items()]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        load.over.set()
        for thread in threads:
            thread.join()
