"""Which replica draws a request: one that holds its adapters, and among these the one with the least to do.

`ranked` decides. The rest is a thin router for Ray Serve, which pickles this module by value into every process that
holds a handle.
"""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ray.serve._private.request_router.pow_2_router import PowerOfTwoChoicesRequestRouter
from ray.serve.request_router import (
    LocalityMixin,
    MultiplexMixin,
    PendingRequest,
    ReplicaID,
    RequestRouter,
    RunningReplica,
)

from serve.adapters.wearing import wearing
from serve.request import GenerationRequest

MISS_S = 2.0
"""What a replica without the adapter is put off by, unless said otherwise. The swap itself takes less than a step; but
it takes a slot as well, out of which another adapter may go."""
PROMISE_S = 15.0
"""So long a replica is taken to hold, and to have to do, what was sent there, though it has not said so yet."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What is known of a replica."""

    name: str
    resident: frozenset[str] = frozenset()
    """Labels of what is in its bank (`Wearing.label`)."""
    work: float = 0.0
    """Steps it has to make."""
    rate: float = 0.0
    """Steps it makes a second, 0 where none were made yet."""


def ranked(label: str, salt: str, replicas: Sequence[Seen], miss_s: float = MISS_S) -> list[str]:
    """Return the replicas' names, best first, for a request that wears `label` ("" is nothing).

    The best is the one that begins soonest: seconds of work before it, and miss_s where the adapter is not. So requests
    stick to the replica that has their adapter until it has miss_s more to do than another; then that one has it too.
    Of equals the order follows from label and name (rendezvous hashing), so that every front sends a new adapter to the
    same place, and other adapters elsewhere; what wears nothing is spread by its salt.
    """
    known = [replica.rate for replica in replicas if replica.rate]
    usual = sum(known) / len(known) if known else 1.0

    def cost(replica: Seen) -> float:
        missed = bool(label) and label not in replica.resident
        # to a tenth of a second, else noise decides before the order that all fronts agree on
        return round(replica.work / (replica.rate or usual) + miss_s * missed, 1)

    order = sorted(replicas, key=lambda replica: (cost(replica), weight(label or salt, replica.name)))
    return [replica.name for replica in order]


def weight(key: str, name: str) -> bytes:
    """Return what orders the replicas for a key, another order for each (Thaler and Ravishankar, 1998)."""
    return hashlib.blake2b(f"{key}\n{name}".encode(), digest_size=8).digest()


def label_of(request: GenerationRequest) -> str:
    """Return what a request wears, "" for nothing."""
    wears = wearing(request.loras)
    return wears.label if wears.parts else ""


@dataclass
class Sent:
    """A request that this process sent a moment ago."""

    replica: ReplicaID
    label: str
    work: float
    until: float
    """When it is forgotten, by the monotonic clock: by then the replica's reports tell."""
    ended: bool = False


class AdapterRouter(LocalityMixin, MultiplexMixin, RequestRouter):  # type: ignore[misc]
    """Ranks the replicas for every request that draws; other calls go by the power of two choices.

    A replica's report is a second old, so this router counts in what it sent itself.
    """

    def initialize_state(self, miss_s: float = MISS_S) -> None:
        self._miss_s = miss_s
        self._sent: dict[str, Sent] = {}

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        request = pending_request.args[0] if pending_request and pending_request.args else None
        if pending_request is None or not isinstance(request, GenerationRequest):
            return await PowerOfTwoChoicesRequestRouter.choose_replicas(self, candidate_replicas, pending_request)  # type: ignore
        pending_request.routing_context.should_backoff = True
        here = {replica.replica_id.unique_id: replica for replica in candidate_replicas}
        salt = pending_request.metadata.internal_request_id
        order = ranked(label_of(request), salt, [self._seen(one) for one in here.values()], self._miss_s)
        # booked now: of a hundred that come at once, the last is chosen for before the first has been accepted
        self._book(pending_request, request, here[order[0]].replica_id)
        return [[here[name]] for name in order]

    def _book(self, pending_request: PendingRequest, request: GenerationRequest, replica_id: ReplicaID) -> None:
        now = time.monotonic()
        self._sent = {key: one for key, one in self._sent.items() if one.until > now}
        sent = Sent(replica_id, label_of(request), request.n * request.steps, now + PROMISE_S)
        self._sent[pending_request.metadata.internal_request_id] = sent

    def _seen(self, replica: RunningReplica) -> Seen:
        report: dict[str, Any] = replica.routing_stats or {}
        now = time.monotonic()
        sent = [one for one in list(self._sent.values()) if one.replica == replica.replica_id and one.until > now]
        return Seen(
            name=replica.replica_id.unique_id,
            resident=frozenset(report.get("resident", ())) | {one.label for one in sent},
            work=max(report.get("row_steps_left", 0.0), sum(one.work for one in sent if not one.ended)),
            rate=report.get("row_steps_per_s") or 0.0,
        )

    def on_request_routed(self, pending_request: PendingRequest, replica_id: ReplicaID, result: Any) -> None:
        super().on_request_routed(pending_request, replica_id, result)
        if pending_request.args and isinstance(request := pending_request.args[0], GenerationRequest):
            self._book(pending_request, request, replica_id)  # where it went in the end

    def on_request_completed(self, replica_id: ReplicaID, internal_request_id: str) -> None:
        super().on_request_completed(replica_id, internal_request_id)
        if sent := self._sent.get(internal_request_id):
            sent.ended = True
