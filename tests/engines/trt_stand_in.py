"""A stand-in for the TensorRT module, so that the runner runs without a GPU: it computes at the addresses it is given.

Its engines compute noise = latents + timestep + scale * mean of what lies in the row's slot of the bank, in the
float32 of the bank's A, and only from memory that was bound, in the shapes that were set. It refuses what TensorRT
would refuse.
"""

import ctypes
import json
from enum import Enum
from math import prod
from types import SimpleNamespace

import numpy as np

from ssd1b.engines.tensorrt.library import Library
from ssd1b.engines.tensorrt.options import Job, Options
from ssd1b.engines.tensorrt.profiles import Profile

TensorIOMode = Enum("TensorIOMode", "NONE INPUT OUTPUT")
DataType = Enum("DataType", "FLOAT HALF INT64")
Severity = Enum("Severity", "INTERNAL_ERROR ERROR WARNING INFO VERBOSE")
Strategy = Enum("Strategy", "STATIC ON_PROFILE_CHANGE USER_MANAGED")
GraphStrategy = Enum("GraphStrategy", "DISABLED WHOLE_GRAPH_CAPTURE")


class ILogger:
    Severity = Severity

    def __init__(self):
        pass


def plan_bytes(profiles, slots=(1, 9), rank=4, width=8):
    """A plan of a UNet of latents (B, 4, h, w): profiles are (rows, (least sides), (most sides))."""
    spans = [
        {
            "latents": [(1, 4, *low), (1, 4, *low), (rows, 4, *high)],
            "timestep": [(1,), (1,), (rows,)],
            "text": [(1, 8, 16), (1, 8, 16), (rows, 32, 16)],
            "pooled": [(1, 8), (1, 8), (rows, 8)],
            "time_ids": [(1, 6), (1, 6), (rows, 6)],
            "slot": [(1,), (1,), (rows,)],
            "scale": [(1,), (1,), (rows,)],
            "a_8x8": [(slots[0], 1, width, 1)] * 2 + [(slots[1], 1, width, rank)],
            "b_8x8": [(slots[0], 1, 1, width)] * 2 + [(slots[1], 1, rank, width)],
        }
        for rows, low, high in profiles
    ]
    return json.dumps(spans).encode()


class RuntimeConfig:
    """RTX's settings of contexts. Its cache counts the contexts that were made with it."""

    def create_runtime_cache(self):
        self.kernels = b"0"
        return SimpleNamespace(deserialize=self.deserialize, serialize=lambda: self.kernels)

    def deserialize(self, kernels):
        self.kernels = kernels

    def set_runtime_cache(self, cache):
        self.cache = cache

    def set_execution_context_allocation_strategy(self, strategy):
        self.strategy = strategy


class Context:
    def __init__(self, engine, how):
        if isinstance(how, RuntimeConfig):
            assert how.cuda_graph_strategy is GraphStrategy.WHOLE_GRAPH_CAPTURE
            how.kernels = str(int(how.kernels) + 1).encode()
            how = how.strategy
        assert how is Strategy.USER_MANAGED
        self.engine, self.shapes, self.addresses, self.memory = engine, {}, {}, 0
        self.profile = None
        self.runs = 0

    def set_optimization_profile_async(self, number, _handle):
        self.profile = self.engine.spans[number]
        return True

    def set_device_memory(self, address, size):
        assert address
        assert size >= self.engine.device_memory_size_v2
        self.memory = address

    def set_input_shape(self, name, shape):
        low, _, high = self.profile[name]
        if not all(a <= n <= b for a, n, b in zip(low, shape, high, strict=True)):
            return False
        self.shapes[name] = tuple(shape)
        return True

    def infer_shapes(self):
        return sorted(self.profile.keys() - self.shapes.keys())

    def get_tensor_shape(self, name):
        return self.shapes["latents" if name == "noise" else name]

    def set_tensor_address(self, name, address):
        self.addresses[name] = address
        return bool(address)

    def at(self, name):
        shape, dtype = self.get_tensor_shape(name), np.int64 if name == "slot" else np.float32
        memory = (ctypes.c_char * (prod(shape) * np.dtype(dtype).itemsize)).from_address(self.addresses[name])
        return np.frombuffer(memory, dtype).reshape(shape)

    def execute_async_v3(self, _handle):
        assert self.memory, "no scratch memory"
        self.runs += 1
        slot_B, scale_B = self.at("slot"), self.at("scale")
        of_adapter_B = np.array([(self.at("a_8x8")[s] @ self.at("b_8x8")[s]).mean() for s in slot_B])
        shift_B = (self.at("timestep") + scale_B * of_adapter_B).astype(np.float32)
        self.at("noise")[...] = self.at("latents") + shift_B[:, None, None, None]
        return True


class Engine:
    device_memory_size_v2 = 64

    def __init__(self, content):
        self.spans = json.loads(content)
        self.names = [*self.spans[0], "noise"]
        self.num_io_tensors, self.num_optimization_profiles = len(self.names), len(self.spans)
        self.contexts = []

    def get_tensor_name(self, i):
        return self.names[i]

    def get_tensor_mode(self, name):
        return TensorIOMode.OUTPUT if name == "noise" else TensorIOMode.INPUT

    def get_tensor_dtype(self, name):
        return DataType.INT64 if name == "slot" else DataType.FLOAT

    def get_tensor_profile_shape(self, name, number):
        return [tuple(shape) for shape in self.spans[number][name]]

    def create_runtime_config(self):
        return RuntimeConfig()

    def create_execution_context(self, how):
        self.contexts.append(Context(self, how))
        return self.contexts[-1]


def stand_in(version="11.4.0.106", name="tensorrt"):
    """A library, and the list of what its runtimes were asked to deserialise."""
    asked = []

    class Runtime:
        def __init__(self, logger):
            self.logger = logger

        def deserialize_cuda_engine(self, content):
            asked.append(content)
            return Engine(content)

    module = SimpleNamespace(
        __version__=version, __name__=name, ILogger=ILogger, Runtime=Runtime, TensorIOMode=TensorIOMode,
        ExecutionContextAllocationStrategy=Strategy, CudaGraphStrategy=GraphStrategy,
    )  # fmt: skip
    return Library(name, module), asked


def job_of(library, content=b"", **more):
    """A job whose key depends on what is given."""
    parts = {"library": library.name, "version": library.version, "capability": "sm80", "content": content.hex()} | more
    return Job("unet", None, (Profile(()),), library, "sm80", Options(), parts)
