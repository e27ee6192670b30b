"""An exported graph to the bytes of a plan.

Strongly typed: the plan computes in the types that the graph was exported in. TensorRT-RTX needs no GPU for it.
"""

import logging
import tempfile
from pathlib import Path
from typing import Any
from uuid import uuid4

from ssd1b.engines.tensorrt.inputs import inputs_of
from ssd1b.engines.tensorrt.options import Job
from ssd1b.engines.tensorrt.quantise import quantised

log = logging.getLogger(__name__)


def build(job: Job, timing_folder: Path) -> bytes:
    """Return the plan of a job. timing_folder keeps what earlier builds measured, where the library measures.

    Raises:
        ValueError: the library cannot build for that GPU, does not take the graph (with the nodes), or the build failed
            (with what the library said).
    """
    with tempfile.TemporaryDirectory(prefix="ssd1b-plan-") as scratch:
        options = job.options
        graph = quantised(job.graph, options.quantise, Path(scratch)) if options.quantise else job.graph
        return build_graph(job, graph, timing_folder)


def build_graph(job: Job, graph: Path, timing_folder: Path) -> bytes:
    library, trt = job.library, job.library.module
    logger = library.log()
    builder = trt.Builder(logger)
    network = library.network(builder)
    parse(trt, network, logger, graph)
    config = builder.create_builder_config()
    library.aim(config, job.capability)
    config.builder_optimization_level = job.options.level
    if job.options.workspace_bytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, job.options.workspace_bytes)
    inputs = {name: value.axes for name, value in inputs_of(graph).items()}
    for profile in job.profiles:
        ours = builder.create_optimization_profile()
        for name, shapes in profile.shapes(inputs).items():
            ours.set_shape(name, shapes.least, shapes.usual, shapes.most)
        if config.add_optimization_profile(ours) < 0:
            raise ValueError(f"{job.name}: {library.name} refuses the profile {profile}: {said(logger)}")
    timing = Timing(job, config, timing_folder)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise ValueError(f"{job.name}: {library.name} {library.version} built no plan for {job.capability}: "
                         f"{said(logger)}")  # fmt: skip
    timing.keep()
    return bytes(plan)


def parse(trt: Any, network: Any, logger: Any, graph: Path) -> None:
    """Fill a network from an ONNX file. It is given by path, for the weights may lie in files beside it.

    Raises:
        ValueError: naming the nodes that the parser does not take.
    """
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(graph)):
        errors = [parser.get_error(i) for i in range(parser.num_errors)]
        told = [f"node {e.node_name() or '?'} ({e.node_operator() or '?'}): {e.desc()}" for e in errors]
        raise ValueError(f"{graph.name} is not a graph that {trt.__name__} takes: {'; '.join(told) or said(logger)}")


def said(logger: Any) -> str:
    return " / ".join(logger.errors[-3:]) or "it gave no reason"


class Timing:
    """What TensorRT measured of its kernels in earlier builds, kept in a file for later ones.

    Keyed by version and GPU: measurements of another GPU would choose its kernels. TensorRT-RTX measures nothing, and
    asking it for such a cache makes it look for a GPU (its documentation, "Timing Cache Migration").
    """

    def __init__(self, job: Job, config: Any, folder: Path) -> None:
        self.config, self.path = config, None
        if not job.library.tunes:
            return
        gpu = str(job.parts["gpu"]).replace(" ", "-").replace("/", "-")
        self.path = folder / f"{job.library.name}-{job.library.version}-{job.capability}-{gpu}.timing"
        known = self.path.read_bytes() if self.path.exists() else b""
        cache = config.create_timing_cache(known)
        if not config.set_timing_cache(cache, ignore_mismatch=False):
            log.warning("%s was measured elsewhere: measuring again", self.path)
            config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)

    def keep(self) -> None:
        """Write what is known now. Of builders that end at the same time the last one's stays: only time is lost."""
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            aside = self.path.with_name(f"{self.path.name}.{uuid4().hex}")
            aside.write_bytes(bytes(self.config.get_timing_cache().serialize()))
            aside.replace(self.path)
