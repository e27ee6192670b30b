"""The calls that the rest of the house makes: look for plans, have plans, and load one.

`ensure_plans` builds what is missing, unless another process of the cluster is at it: then it says so at once, and the
caller serves with another backend meanwhile and asks again. `load_plan` is the only place that deserialises.
"""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ssd1b.engines.tensorrt.builder import build
from ssd1b.engines.tensorrt.lease import Build, Building, Pace, contend
from ssd1b.engines.tensorrt.library import Library, capability_here, open_library
from ssd1b.engines.tensorrt.options import Job, Options, Target
from ssd1b.engines.tensorrt.plans import Plan, UntrustedError, bytes_of, find, may_build, publish

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ready:
    """Every graph has a plan."""

    plans: Mapping[str, Plan]
    built: tuple[str, ...] = ()
    """The graphs whose plans this very call has built."""


def ensure_plans(
    folder: Path,
    graphs: Mapping[str, Path],
    target: Target,
    options: Options | None = None,
    pace: Pace | None = None,
) -> Ready | Building:
    """Have a plan for every graph (name in the bundle -> ONNX file), building what is missing.

    folder is shared by all who build and load, best on the file system of the storage root. Building takes minutes at
    full size and blocks: call it from a thread of its own where something is being served. Of processes that call it
    with the same arguments at the same time, one builds each plan.

    Raises:
        ValueError: no library for the target, a graph that cannot be served so, a failed build (see `build`), or keys
            under which no plan could be used.
    """
    options, pace = options or Options(), pace or Pace()
    folder.mkdir(parents=True, exist_ok=True)
    plans: dict[str, Plan] = {}
    built: list[str] = []
    for name, graph in graphs.items():
        job = Job.of(name, graph, target, options)
        plan = known(folder, job.key)
        if plan is None:
            may_build()
            with contend(folder / "leases" / job.key, pace) as decision:
                if isinstance(decision, Building):
                    return Building(decision.by, name)
                assert isinstance(decision, Build)
                plan = known(folder, job.key)  # built by another between our look and our lease
                if plan is None:
                    plan = make(folder, job)
                    built.append(name)
        plans[name] = plan
    return Ready(plans, tuple(built))


def ready_plans(
    folder: Path, graphs: Mapping[str, Path], target: Target, options: Options | None = None
) -> Ready | None:
    """Return the plans of all graphs if they are there, building nothing: what a bundle brought, for instance.

    Raises:
        ValueError: no library for the target, or a graph that cannot be served so.
    """
    plans = {name: known(folder, Job.of(name, graph, target, options or Options()).key)
             for name, graph in graphs.items()}  # fmt: skip
    there = {name: plan for name, plan in plans.items() if plan is not None}
    return Ready(there) if len(there) == len(plans) else None


def known(folder: Path, key: str) -> Plan | None:
    """Return a plan if it is there and trusted. Of one that is there and is not, the log says why."""
    try:
        return find(folder, key)
    except FileNotFoundError:
        return None
    except UntrustedError as reason:
        log.warning("a plan is not used: %s", reason)
        return None


def make(folder: Path, job: Job) -> Plan:
    started = time.monotonic()
    log.info("building a plan of %s for %s with %s %s", job.name, job.capability, job.library.name, job.library.version)
    content = build(job, folder / "timing")
    return publish(folder, job, content, time.monotonic() - started)


@dataclass(frozen=True)
class Loaded:
    """A deserialised plan. The library's runtime must outlive its engine, so they go together."""

    library: Library
    engine: Any
    runtime: Any
    plan: Plan

    @property
    def kernels(self) -> Path:
        """Where kernels that are compiled for this plan and this GPU are kept, if the library compiles any here."""
        gpu = torch.cuda.get_device_name().replace(" ", "-").replace("/", "-") if torch.cuda.is_available() else "none"
        return self.plan.folder.parent / "kernels" / f"{self.plan.folder.name}-{gpu}"


def load_plan(plan: Plan, library: Library | None = None) -> Loaded:
    """Deserialise a plan on the GPU at hand, after all of it verifies.

    library is the one that built it, opened again; by default it is found by name. Never ran on a GPU.

    Raises:
        UntrustedError: the plan is not the one that was signed.
        ValueError: it is for another GPU or version, or the library does not take it.
    """
    find(plan.folder.parent, plan.folder.name)  # what was signed when the plan was found may have been swapped since
    parts = plan.manifest["parts"]
    library = library or open_library(parts["library"])
    if library.version != parts["version"]:
        raise ValueError(f"the plan {plan.folder.name} was built by {parts['library']} {parts['version']}, here is "
                         f"{library.version}: build it again (ensure_plans does)")  # fmt: skip
    here = capability_here()
    if here is not None and here != parts["capability"]:
        raise ValueError(f"the plan {plan.folder.name} is for {parts['capability']}, this GPU is {here}: build one for "
                         f"it (ensure_plans does)")  # fmt: skip
    content = bytes_of(plan)
    logger = library.log()
    runtime = library.module.Runtime(logger)
    engine = runtime.deserialize_cuda_engine(content)
    if engine is None:
        raise ValueError(f"{library.name} {library.version} does not take the plan {plan.folder.name}: "
                         f"{' / '.join(logger.errors[-3:]) or 'it gave no reason'}")  # fmt: skip
    return Loaded(library, engine, runtime, plan)
