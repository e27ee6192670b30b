"""What may be set of the endpoint: by a Serve config under `args`, or by the options of `python -m serve.app up`."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from serve.pictures import Finishing, Signing


class Settings(BaseModel):
    """Every field has a default that serves the champion of this machine's registry to this machine."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # ---- what is served
    model: str = "ssd1b-nano"
    """Registered model whose @champion is served, under this name."""
    backend: str = "auto"
    """Engine backend of the champion's bundle."""
    adapters: Path | None = None
    """A folder of LoRA files, offered beside the registry's and before them."""
    slots: Annotated[int, Field(ge=2)] | None = None
    """Slots of the LoRA bank, slot 0 (none) included; None is what the bundle says."""
    rank: Annotated[int, Field(ge=1)] | None = None
    """The greatest rank that a slot holds: several adapters of one request need the sum of theirs."""
    poll_s: Annotated[float, Field(gt=0)] = 5
    """How often a replica looks whether the champion has moved; a webhook makes it look at once."""

    # ---- how much of it
    batch_rows: Annotated[int, Field(ge=1)] = 8
    """Pictures that make a step together."""
    min_replicas: Annotated[int, Field(ge=0)] = 1
    """0 lets an idle endpoint go to sleep; the next request waits until a replica is up."""
    max_replicas: Annotated[int, Field(ge=1)] = 2
    drain_s: Annotated[float, Field(gt=0)] = 10
    """Replicas are added until what is queued would be drawn in so many seconds."""
    batch_drain_s: Annotated[float, Field(gt=0)] = 120
    """The same for requests of priority "batch"."""
    idle_s: Annotated[float, Field(gt=0)] = 120
    """So long less must have been enough before a replica goes."""
    fronts: Annotated[int, Field(ge=1)] = 1
    """Processes that read requests and answer them. Several run on the head node, since they share a SQLite file under
    the storage root; A1111's /progress and /interrupt know of the requests of one of them only."""
    engine_cpus: float = 1
    engine_gpus: float = 0

    # ---- to whom
    open: bool = False
    """Serve whoever reaches it, free, if there are no accounts. `up` says so itself on this machine's own address."""
    webhook_hosts: tuple[str, ...] = ()
    """HOST or HOST:PORT of private networks that Replicate's webhooks may be sent to."""

    # ---- what is done to every picture
    parameters: bool = True
    """Prompts and settings in the file."""
    watermark: str | None = None
    """An invisible message of up to 16 bytes."""
    c2pa_chain: Path | None = None
    """PEM file of certificates: every picture gets a signed manifest that a model made it."""
    c2pa_key: Path | None = None
    """PEM file of the private key that goes with them."""
    c2pa_algorithm: str = "es256"
    safety: str | None = None
    """`package.module:function` of a filter (serve/pictures/finishing.py)."""

    @model_validator(mode="after")
    def both_or_neither(self) -> "Settings":
        """Refuse half a signature."""
        if (self.c2pa_chain is None) != (self.c2pa_key is None):
            raise ValueError("c2pa_chain and c2pa_key go together: give the files of both, or of neither")
        return self

    @property
    def finishing(self) -> Finishing:
        """What is done to every picture."""
        signing = None
        if self.c2pa_chain is not None and self.c2pa_key is not None:
            signing = Signing(chain=self.c2pa_chain, key=self.c2pa_key, algorithm=self.c2pa_algorithm)
        return Finishing(
            parameters=self.parameters, watermark=self.watermark, provenance=signing, safety=self.safety
        )  # fmt: skip
