"""Notices: what tells a worker to leave before it is made to.

A cloud says that a spot machine goes in a minute or two; a cluster drains a node; a job wants to go on with more
workers. Whoever hears of it calls `tell`; the loop asks `told` once a step, agrees with the other workers in the
all-reduce that it makes anyway, keeps a checkpoint and leaves. Nothing here knows of Ray.

    sources     "file:/run/spot", "http://host/path", "aws", "gcp": what `watch` looks at, on each worker's machine
    leaving/    in a run's folder: nodes that a worker has heard to be going, so that the next group avoids them
"""

import json
import os
import signal
import threading
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, Protocol

Kind = Literal["grow", "drain", "spot", "terminated"]
KINDS: tuple[Kind, ...] = ("spot", "terminated", "drain", "grow")
"""Why workers leave: a machine is taken back; they were sent SIGTERM; a node goes; to come back as more. The first of
these counts where there are several."""

LOOK_EVERY_S = 2.0
"""The clouds' own advice is five seconds at most."""
ANSWER_S = 2.0
"""How long a source may take to answer."""
MEANT_S = 1.0
"""How long a process lives after SIGTERM before its node is believed to be going; Ray kills after a tenth of that."""
GOING_S = {"spot": 180.0, "terminated": 60.0}
"""How long a node that is going is avoided. Then it is gone, or the notice was not meant for the machine."""


@dataclass(frozen=True, kw_only=True)
class Notice:
    """One reason to leave."""

    kind: Kind
    message: str = ""


class LeftError(RuntimeError):
    """All workers have left after a checkpoint, as they were asked to; the next group goes on from there.

    It lies here because who hears of it need not import the loop.
    """


_told: list[Notice] = []
"""Of this process: a worker process serves one group of workers, and dies with it."""


def tell(notice: Notice) -> None:
    """Tell this process to leave. Safe in a signal handler and from any thread."""
    _told.append(notice)


def told() -> Notice | None:
    """Return the first reason why this process must leave, or None."""
    return _told[0] if _told else None


def listen(root: Path, node_id: str) -> None:
    """From now on SIGTERM asks this process to leave, instead of ending it. Only a main thread may call this.

    Its node is avoided if the process is still there a while later: where Ray itself ends a worker, SIGKILL follows.
    """

    def on_sigterm(_number: int, _frame: object) -> None:
        tell(Notice(kind="terminated", message="SIGTERM"))
        later = threading.Timer(MEANT_S, going, (root, node_id, "terminated"))
        later.daemon = True
        later.start()

    signal.signal(signal.SIGTERM, on_sigterm)


class Source(Protocol):
    """Something on a machine that knows when the machine goes."""

    def look(self) -> str | None:
        """Return what it says, or None as long as nothing is wrong.

        Raises:
            OSError: it cannot be asked now.
        """


@dataclass(frozen=True, kw_only=True)
class FileSource:
    """A file that appears: what a node's shutdown hook or a termination handler can write."""

    path: Path

    def look(self) -> str | None:
        return self.path.read_text().strip() or self.path.name if self.path.exists() else None


@dataclass(frozen=True, kw_only=True)
class UrlSource:
    """A page of the machine's metadata server that is absent, empty or FALSE until the machine is taken back."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    token_url: str | None = None
    """Where a token is to be had by PUT first (AWS's IMDSv2)."""

    def look(self) -> str | None:
        headers = dict(self.headers)
        if self.token_url:
            asked = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
            headers["X-aws-ec2-metadata-token"] = self.ask(self.token_url, asked, "PUT")
        try:
            said = self.ask(self.url, headers, "GET").strip()
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise
        return None if said.upper() in ("", "FALSE", "NONE") else said

    def ask(self, url: str, headers: Mapping[str, str], method: str) -> str:
        request = urllib.request.Request(url, headers=dict(headers), method=method)
        with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:
            return str(answer.read().decode(errors="replace"))


CLOUDS = {
    # docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html: 404 until two minutes before
    "aws": UrlSource(
        url="http://169.254.169.254/latest/meta-data/spot/instance-action",
        token_url="http://169.254.169.254/latest/api/token",
    ),
    # cloud.google.com/compute/docs/instances/create-use-preemptible: FALSE until thirty seconds before
    "gcp": UrlSource(
        url="http://metadata.google.internal/computeMetadata/v1/instance/preempted",
        headers={"Metadata-Flavor": "Google"},
    ),
}


def source(name: str, node_id: str = "") -> Source:
    """Return the source of a name: "aws", "gcp", "file:/path" or an http(s) URL; {node} in it stands for the node's id.

    Raises:
        ValueError: it is none of these.
    """
    if name in CLOUDS:
        return CLOUDS[name]
    name = name.replace("{node}", node_id)
    if name.startswith("file:/"):
        return FileSource(path=Path(name.removeprefix("file:")))
    if name.startswith(("http://", "https://")):
        return UrlSource(url=name)
    raise ValueError(f"no spot notices from {name!r}: say {', '.join(CLOUDS)}, file:/path or an http(s) URL")


def watch(sources: Sequence[Source], root: Path, node_id: str, every_s: float = LOOK_EVERY_S) -> None:
    """Look at the sources in a thread of their own until one says that this machine goes; then tell, and note it."""

    def run() -> None:
        silent: set[int] = set()
        while True:
            for number, each in enumerate(sources):
                try:
                    said = each.look()
                except OSError as error:  # urllib's errors are OSErrors
                    if number not in silent:
                        warnings.warn(f"spot notices cannot be read from {each}: {error}", stacklevel=2)
                    silent.add(number)
                    continue
                silent.discard(number)
                if said is not None:
                    going(root, node_id, "spot")
                    tell(Notice(kind="spot", message=said))
                    return
            time.sleep(every_s)

    if sources:
        threading.Thread(target=run, daemon=True, name="spot notices").start()


@dataclass(frozen=True, kw_only=True)
class Going:
    """A node that a worker has heard to be going."""

    node_id: str
    until_s: float
    """Seconds since 1970 until which it is avoided."""


def going(root: Path, node_id: str, kind: Literal["spot", "terminated"]) -> None:
    """Note in a run's folder that a node is going."""
    folder = root / "leaving"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{node_id}.json"
    aside = path.with_suffix(f".tmp-{os.getpid()}")
    aside.write_text(json.dumps(asdict(Going(node_id=node_id, until_s=time.time() + GOING_S[kind]))))
    aside.rename(path)


def gone_soon(root: Path) -> set[str]:
    """Return the nodes that are to be avoided now."""
    notes = [Going(**json.loads(path.read_text())) for path in (root / "leaving").glob("*.json")]
    return {note.node_id for note in notes if note.until_s > time.time()}
