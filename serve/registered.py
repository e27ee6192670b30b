"""A model of MLflow's registry as replicas serve it: its @champion, a canary if there is one, and its adapters."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path

from serve.adapters.catalogue import Folder, Registry, Several
from serve.champion import Champion
from serve.model import Opened
from serve.rollout import registry
from serve.rollout.target import Target
from ssd1b import tracking
from ssd1b.engines.bundle import Bundle

logger = logging.getLogger("ray.serve")


@dataclass(frozen=True)
class Registered:
    """A registered model, followed (see `serve.model.Model`).

    A version carries the tag "bundle", the uri of its engine bundle; without it the torch backend runs on the version's
    own folder, slower but the same pictures. slots and rank are the room for adapters, by default what the bundle says;
    several adapters of one request need the sum of their ranks.
    """

    model: str
    backend: str = "auto"
    adapters: Path | None = None
    """A folder of them, before the registry's."""
    slots: int | None = None
    rank: int | None = None

    def look(self, before: Target | None) -> Target:
        """Return what is to be served (see `registry.look`).

        Raises:
            ValueError: there is no champion; the message says what makes one.
        """
        try:
            return registry.look(self.model, before)
        except ValueError as error:
            raise ValueError(f"nothing to serve: {error}. `make demo` goes the whole way and makes one") from error

    def open(self, version: str) -> Opened:
        """Download and open a version.

        Raises:
            ValueError: no such version or folder of adapters, or no room for an adapter.
        """
        found = tracking.find(f"models:/{self.model}/{version}")
        uri = found.tags.get("bundle")
        if uri is None:
            logger.warning(
                "%s has no engine bundle (`python -m jobs.export` makes it): torch runs its folder", found.uri
            )
        bundle = Bundle.load(tracking.download(uri or found.uri), self.backend if uri else "auto")
        room = {key: value for key, value in (("slots", self.slots), ("rank", self.rank)) if value is not None}
        champion = Champion(replace(bundle, manifest={**bundle.manifest, **room}), self.model, version)
        logger.info("serving %s (%s) on %s", found.uri, uri or "no bundle", bundle.backend)
        theirs = Registry(self.model)
        return champion, theirs if self.adapters is None else Several([Folder(self.adapters), theirs])
