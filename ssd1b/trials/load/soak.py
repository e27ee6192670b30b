"""jobs.benchmark serve_soak: the endpoint through a bad day, with the clients that its users have.

Callers ask for pictures in every dialect, with adapters by Zipf's law, while the champion moves, adapters come, change
and go, and processes are killed. Every picture is kept with its request, the version that drew it and its moment;
afterwards an idle engine of that version draws a sample of them again.
"""

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ssd1b.command import show
from ssd1b.recipes.serving import ServeSoak
from ssd1b.trials.load.contestants import Server, ours, running
from ssd1b.trials.load.harm import Endpoint
from ssd1b.trials.load.soak_hands import SECRET, Hands, deaths, first_issues
from ssd1b.trials.load.soak_plan import kills, moves, swaps
from ssd1b.trials.load.soak_report import Day, reported
from ssd1b.trials.load.soak_stand import Versions, register_adapter, register_versions, write_adapter
from ssd1b.trials.load.soak_tally import Told
from ssd1b.trials.load.soak_wishes import Wish, seed_of, wishes
from ssd1b.trials.load.stand import MODEL, at_home, prompts
from ssd1b.trials.load.trace import Mix, at_once
from ssd1b.trials.load.wardrobe import Wardrobe

if TYPE_CHECKING:
    from ssd1b.trials.load.soak_clients import Clients

PROMPTS = 64
SPACED = 5
"""A registered adapter comes after so many of the folder, by popularity."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where everything of a run lies."""

    scratch: Path
    adapters: Path
    variants: Path
    names: tuple[str, ...]
    """Of all adapters, most popular first."""
    versions: Versions


def soak(config: ServeSoak) -> dict[str, Any]:
    """Live through the day of a recipe, print what became of it, and return that.

    Raises:
        ValueError: no such student, teacher or dialect, or clients that are not installed.
        RuntimeError: requests failed or were lost, or a picture is another than an idle engine's.
    """
    try:
        from ssd1b.trials.load.soak_clients import local_only
    except ModuleNotFoundError as error:
        raise ValueError(f"the soak test needs {error.name}: install the extra `dev`, which has all clients") from error
    with tempfile.TemporaryDirectory(prefix="soak-", dir=config.scratch or None) as folder, local_only():
        scratch = Path(folder)
        with at_home(scratch / "home"):
            place = prepare(config, scratch)
            day = lived(config, place)
        if config.kept:
            shutil.copy(scratch / "ours.log", config.kept)
        return reported(config, day, place.versions.bundles)


def prepare(config: ServeSoak, scratch: Path) -> Place:
    """Make and register the versions and the adapters."""
    began = time.monotonic()
    if config.kept:
        Path(config.kept).mkdir(parents=True, exist_ok=True)
    versions = register_versions(config.teachers, config.student, scratch)
    adapters, variants, unet = scratch / "adapters", scratch / "variants", versions.unet
    adapters.mkdir()
    names = [f"style-{number:04d}" for number in range(config.adapters)]
    for name in names:
        write_adapter(unet, adapters / f"{name}.safetensors", seed_of(name))
    for number in range(config.registered):
        name = f"reg-{number:02d}"
        write_adapter(unet, variants / name / "adapter_model.safetensors", seed_of(name))
        register_adapter(name, variants / name)
        names.insert((number + 1) * SPACED, name)
    show(f"{len(versions.names)} versions and {len(names)} adapters made in {time.monotonic() - began:.0f} s")
    return Place(scratch=scratch, adapters=adapters, variants=variants, names=tuple(names), versions=versions)


def lived(config: ServeSoak, place: Place) -> Day:
    """Start the endpoint, let everything happen, take it down, and return what is known of the day."""
    environment = {
        "SSD1B_HOME": os.environ["SSD1B_HOME"], "MLFLOW_TRACKING_URI": "", "OMP_NUM_THREADS": str(config.threads),
        "RAY_AUTH_MODE": "disabled", "RAY_worker_niceness": "0", "SSD1B_WEBHOOK_SECRET": SECRET,
    }  # fmt: skip
    endpoint = ours(
        model=MODEL, backend=config.backend, adapters=place.adapters,
        min_replicas=config.replicas, max_replicas=config.replicas,
    )  # fmt: skip
    mix = Mix(
        prompts=prompts(PROMPTS, config.seed), adapters=place.names, exponent=config.exponent,
        plain_share=config.plain_share, steps=config.steps,
    )  # fmt: skip
    with running(endpoint, place.scratch, environment, at_once(mix, 1, config.seed)[0]) as server:
        return through(config, place, mix, server)


def through(config: ServeSoak, place: Place, mix: Mix, server: Server) -> Day:
    """Let callers call while the three pairs of hands do what was planned."""
    from ssd1b.trials.load.soak_clients import Clients
    from ssd1b.trials.load.soak_watch import session_of, trouble, watching

    random = np.random.default_rng([config.seed, 1])
    swapped = swaps(place.names, config, random)
    wardrobe = Wardrobe(config.grace_s)
    first_issues(place.names, place.adapters, place.variants, {one.adapter for one in swapped}, wardrobe)
    moved = moves(place.versions.names, config)
    died = deaths(kills(config.kills, config.seconds, random), kills(config.controller_kills, config.seconds, random))
    hands = Hands(
        config=config, endpoint=Endpoint(server=server, home=place.scratch / "home", key="none", connections=0),
        unet=place.versions.unet, wardrobe=wardrobe, folder=place.adapters, variants=place.variants,
    )  # fmt: skip
    crowd = Crowd(config, server.url, mix, wardrobe)
    probe = Clients(server.url, config.patience_s)
    with watching(server) as watch, ThreadPoolExecutor(3, "hands") as pool:
        crowd.start()
        hands.began = time.monotonic()
        jobs = [
            pool.submit(hands.move_all, moved, crowd.followed),
            pool.submit(hands.kill_all, died),
            pool.submit(hands.swap_all, swapped, lambda name: crowd.drawn(probe, name)),
        ]
        try:
            for job in jobs:
                job.result()
            hands.wait(config.seconds)
        finally:
            crowd.stop()
        watch.look()
    logs = session_of(server)
    lines = trouble(logs / "logs") if logs else {}
    if config.kept and logs:
        shutil.copytree(logs / "logs" / "serve", Path(config.kept) / "serve", dirs_exist_ok=True)
    return Day(
        told=crowd.told, lost=crowd.waiting, wardrobe=wardrobe, moved=hands.moved, died=hands.died,
        swapped=hands.swapped, counters=watch.samples, trouble=lines, seconds=hands.now,
    )  # fmt: skip


# ---- callers


@dataclass
class Crowd:
    """Callers, each on a thread: one asks again as soon as it is answered."""

    config: ServeSoak
    url: str
    mix: Mix
    wardrobe: Wardrobe
    told: list[Told] = field(default_factory=list)
    under_way: dict[int, Wish] = field(default_factory=dict)
    """By number of the caller."""
    _over: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        for number, dialect in enumerate(self.config.callers):
            mine = wishes(dialect, self.mix, self.config.seed + 1000 * (number + 1), self.wardrobe.added)
            thread = threading.Thread(target=self._call, args=(number, mine), name=f"caller {number}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Let every caller wait for its last answer, as long as its patience lasts."""
        self._over.set()
        end = time.monotonic() + self.config.patience_s
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))

    @property
    def waiting(self) -> list[Wish]:
        """What has no answer yet."""
        return list(self.under_way.values())

    def _call(self, number: int, mine: Iterator[Wish]) -> None:
        from ssd1b.trials.load.soak_clients import Clients

        clients = Clients(self.url, self.config.patience_s)
        while not self._over.is_set():
            wish = next(mine)
            self.under_way[number] = wish
            self.told.append(asked(clients, wish))
            del self.under_way[number]

    def followed(self, version: str, since: float) -> bool:
        """Whether a version drew a picture that came after a moment."""
        return any(one.version == version and one.ended > since for one in list(self.told))

    def drawn(self, clients: "Clients", adapter: str) -> bool:
        """Ask for a small picture with an adapter, which counts as any other request, and say whether it came."""
        seed = seed_of(f"{adapter} {len(self.told)}")
        ask = replace(at_once(self.mix, 1, seed)[0], adapter=adapter, steps=2)
        told = asked(clients, Wish(dialect="openai", ask=ask, sampler="euler"))
        self.told.append(told)
        return told.pixels_HW3 is not None


def asked(clients: "Clients", wish: Wish) -> Told:
    """Ask for a picture and return what came."""
    from ssd1b.trials.load.soak_clients import RefusedError, version_in

    began = time.time()
    try:
        picture = clients.draw(wish)
    except RefusedError as refused:
        return Told(wish=wish, began=began, ended=time.time(), error=str(refused), clean=refused.clean)
    ended = time.time()
    pixels_HW3 = np.asarray(picture.convert("RGB"))
    return Told(wish=wish, began=began, ended=ended, pixels_HW3=pixels_HW3, version=version_in(picture))
