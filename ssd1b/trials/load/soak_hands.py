"""What is done to the endpoint during the soak test: the champion moves, adapters change, processes are killed."""

import base64
import hashlib
import hmac
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import httpx
from diffusers import UNet2DConditionModel

from ssd1b import tracking
from ssd1b.command import show
from ssd1b.recipes.serving import ServeSoak
from ssd1b.trials.load.harm import CONTROLLER, REPLICA, Endpoint, killed
from ssd1b.trials.load.soak_plan import Move, Swap
from ssd1b.trials.load.soak_stand import register_adapter, withdraw_adapter, write_adapter
from ssd1b.trials.load.soak_tally import Moved
from ssd1b.trials.load.soak_wishes import seed_of
from ssd1b.trials.load.stand import MODEL
from ssd1b.trials.load.wardrobe import Wardrobe

HOOK, SECRET = "/hooks/mlflow", "a secret of the soak test"
CHAMPION = "champion"


@dataclass
class Hands:
    """Everything that the three pairs of hands need, and what they did. Each pair works on a thread of its own."""

    config: ServeSoak
    endpoint: Endpoint
    unet: UNet2DConditionModel
    wardrobe: Wardrobe
    folder: Path
    """Of the adapters that the endpoint reads."""
    variants: Path
    """Where the weights of every issue of an adapter stay."""
    moved: list[Moved] = field(default_factory=list)
    died: list[str] = field(default_factory=list)
    swapped: list[dict[str, Any]] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)
    _deliveries: Iterator[int] = field(default_factory=count)

    def wait(self, at_s: float) -> None:
        time.sleep(max(0.0, self.began + at_s - time.monotonic()))

    # ---- the champion

    def move_all(self, moves: Sequence[Move], drawn: Callable[[str, float], bool]) -> None:
        """Make the moves at their moments, but none before a picture of the last one's version has come.

        A canary comes half the time between two moves before it is promoted. drawn: whether a version has drawn a
        picture that came after a moment, seconds since 1970. A version that takes longer than follow_s is not waited
        for: opening one takes processor that a small or busy machine lacks.
        """
        before_s = 0.0
        for move in moves:
            before = tracking.version_of(MODEL, CHAMPION).version
            if move.how == "promote":
                self.wait((before_s + move.at_s) / 2)
                self.rollout("canary", "--version", move.version, "--share", str(self.config.canary_share))
            self.wait(move.at_s)
            if move.how == "crown":
                tracking.crown(MODEL, CHAMPION, move.version)
            else:
                self.rollout(move.how)
            at = time.time()
            if move.by == "webhook":
                self.tell()
            now = tracking.version_of(MODEL, CHAMPION).version
            if now != move.version:
                raise RuntimeError(f"{move.how}: version {move.version} should be champion, and {now} is")
            self.moved.append(Moved(move=move, at=at, before=before, canary=move.how == "promote"))
            show(f"{self.now} s: version {before} to {move.version} by {move.how}, {move.by}")
            before_s = self.now
            self.wait_for(partial(drawn, move.version, at), self.config.follow_s)

    def rollout(self, *arguments: str) -> None:
        """Run the operator's command."""
        done = subprocess.run(
            [sys.executable, "-m", "serve.rollout", *arguments, "--model", MODEL],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"serve.rollout {' '.join(arguments)}: {done.stderr[-1000:]}")

    def tell(self) -> None:
        """Send what MLflow's webhook sends, signed as it signs (mlflow.webhooks.delivery)."""
        body, stamp, delivery = (
            json.dumps({"entity": "model_version_alias"}),
            str(int(time.time())),
            str(next(self._deliveries)),
        )
        digest = hmac.new(SECRET.encode(), f"{delivery}.{stamp}.{body}".encode(), hashlib.sha256).digest()
        headers = {
            "x-mlflow-signature": f"v1,{base64.b64encode(digest).decode()}",
            "x-mlflow-timestamp": stamp, "x-mlflow-delivery-id": delivery,
        }  # fmt: skip
        answer = httpx.post(f"{self.endpoint.server.url}{HOOK}", content=body, headers=headers, timeout=60)
        if answer.status_code != 204:
            raise RuntimeError(f"the webhook is answered {answer.status_code}: {answer.text[:300]}")

    # ---- processes

    def kill_all(self, planned: Sequence[tuple[float, str]]) -> None:
        """Kill processes of a title at their moments, but none before all replicas answer after the last kill."""
        for at_s, name in planned:
            self.wait(at_s)
            if not self.wait_for(self.whole, self.config.patience_s):
                raise RuntimeError(f"after {self.config.patience_s:g} s there are not {self.config.replicas} replicas")
            self.died.append(f"{self.now} s: {name.rpartition(':')[2]}: {killed(self.endpoint, name, 1)}")
            show(self.died[-1])

    def whole(self) -> bool:
        """Whether all replicas answer."""
        answer = httpx.get(f"{self.endpoint.server.url}/status", timeout=60)
        return answer.status_code == 200 and len(answer.json()["replicas"]) == self.config.replicas

    # ---- adapters

    def swap_all(self, swaps: Sequence[Swap], drawn: Callable[[str], bool]) -> None:
        """Change adapters at their moments. drawn: whether a picture with an adapter comes, asked after an addition."""
        for number, swap in enumerate(swaps):
            self.wait(swap.at_s)
            place = self.change(swap, number)
            line: dict[str, Any] = {"at_s": self.now, "change": swap.change, "adapter": swap.adapter, "place": place}
            if swap.change == "add":
                began = self.now
                if not self.wait_for(partial(drawn, swap.adapter), self.config.patience_s):
                    raise RuntimeError(f"{swap.adapter} was added and is not drawn with")
                line["drawable_s"] = round(self.now - began, 1)
            self.swapped.append(line)

    def change(self, swap: Swap, number: int) -> str:
        """Carry out a change; return where: in the folder, written anew or renamed into place, or in the registry."""
        file = self.folder / f"{swap.adapter}.safetensors"
        registered = swap.adapter.startswith("reg-") or (swap.change == "add" and number % 3 == 2)
        if swap.change == "remove":
            if registered:
                withdraw_adapter(swap.adapter)
            else:
                file.unlink()
            self.wardrobe.take(swap.adapter, time.time())
            return "registry" if registered else "folder"
        fresh = self.variants / f"{swap.adapter}-{number}" / "adapter_model.safetensors"
        write_adapter(self.unet, fresh, seed_of(f"{swap.adapter} {number}"))
        if registered:
            register_adapter(swap.adapter, fresh.parent)
            place = "registry"
        elif number % 2:
            shutil.copyfile(fresh, file)
            place = "folder, written over"
        else:
            beside = self.variants / f"{swap.adapter}.part"
            shutil.copyfile(fresh, beside)
            beside.replace(file)
            place = "folder, renamed"
        self.wardrobe.hang(swap.adapter, fresh, time.time())
        return place

    def wait_for(self, holds: Callable[[], bool], most_s: float) -> bool:
        """Wait until something holds, and return whether it does."""
        end = time.monotonic() + most_s
        while not (there := holds()) and time.monotonic() < end:
            time.sleep(0.2)
        return there

    @property
    def now(self) -> float:
        """Seconds since the beginning."""
        return round(time.monotonic() - self.began, 1)


def deaths(of_replicas: Sequence[float], of_controllers: Sequence[float]) -> list[tuple[float, str]]:
    """Return what is killed when, in order of time."""
    return sorted([*((at_s, REPLICA) for at_s in of_replicas), *((at_s, CONTROLLER) for at_s in of_controllers)])


def first_issues(names: Sequence[str], folder: Path, variants: Path, changed: set[str], wardrobe: Wardrobe) -> None:
    """Note the adapters that are there from the beginning; those that will change are copied aside."""
    for name in names:
        file = folder / f"{name}.safetensors"
        if name in changed and file.is_file():
            kept = variants / f"{name}-first" / "adapter_model.safetensors"
            kept.parent.mkdir(parents=True)
            shutil.copyfile(file, kept)
            file = kept
        wardrobe.hang(name, file if file.is_file() else variants / name / "adapter_model.safetensors", 0.0)
