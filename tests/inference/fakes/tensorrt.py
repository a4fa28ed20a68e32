"""A TensorRT of the interface that we use: an engine is JSON, and its one kernel means over the channels.

Child processes import it too, with its folder on PYTHONPATH. It does what the environment says:
FAKE_TENSORRT is `kill` (the builder is killed like one out of memory), `sleep` (it never ends), `refuse` (the
parser does not take the model) or empty.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import time
from enum import IntEnum
from pathlib import Path
from types import SimpleNamespace

import numpy as np

__version__ = "10.3.0"

CALLS: list[str] = []
"""What was called, in order."""


class ILogger:
    class Severity(IntEnum):
        INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

    def log(self, severity, message):
        raise AssertionError


class NetworkDefinitionCreationFlag:
    STRONGLY_TYPED = 1


class MemoryPoolType(IntEnum):
    WORKSPACE, TACTIC_DRAM = range(2)


class ProfilingVerbosity(IntEnum):
    DETAILED = 2


class LayerInformationFormat(IntEnum):
    JSON = 1


class TensorIOMode(IntEnum):
    INPUT, OUTPUT = 1, 2


def nptype(dtype):
    return np.dtype(dtype).type


class _Cache:
    def __init__(self, content):
        self.content = content

    def serialize(self):
        return self.content + b"+"


class _Config:
    def __init__(self):
        self.limits = {}

    def set_memory_pool_limit(self, pool, size):
        self.limits[pool.name] = size

    def create_timing_cache(self, content):
        return _Cache(content)

    def set_timing_cache(self, cache, ignore_mismatch):
        assert not ignore_mismatch
        return cache.content != b"of another device"


class _Network(dict):
    """What a network says of itself; its tensors are those of `TENSORS`."""

    num_inputs, num_outputs = 2, 1

    def get_input(self, index):
        name, (_, dtype, shape) = list(TENSORS.items())[index]
        return SimpleNamespace(name=name, dtype=dtype, shape=shape)

    def get_output(self, index):
        return self.get_input(self.num_inputs + index)


class Builder:
    def __init__(self, log):
        self.log = log

    def create_network(self, flags):
        return _Network(flags=flags)

    def create_builder_config(self):
        return _Config()

    def build_serialized_network(self, network, config):
        mode = os.environ.get("FAKE_TENSORRT", "")
        if mode == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if mode == "sleep":
            Path(os.environ["FAKE_TENSORRT_PID"]).write_text(str(os.getpid()))
            time.sleep(600)
        values = {**network, "level": config.builder_optimization_level, "limits": config.limits}
        return bytearray(json.dumps(values | {"verbosity": int(config.profiling_verbosity)}).encode())


class OnnxParser:
    num_errors = 1

    def __init__(self, network, log):
        self.network = network

    def parse(self, model):
        self.network["model"] = len(model)
        return os.environ.get("FAKE_TENSORRT") != "refuse"

    def get_error(self, index):
        class Error:
            def desc(self):
                return "Invalid Node - conv1\nno such layer\nand more"

        return Error()


TENSORS = {
    "images": (TensorIOMode.INPUT, np.uint8, (2, 4, 6, 3)),
    "focal": (TensorIOMode.INPUT, np.float32, (2,)),
    "depth": (TensorIOMode.OUTPUT, np.float32, (2, 4, 6)),
}


class Runtime:
    def __init__(self, log):
        self.log = log

    def deserialize_cuda_engine(self, content):
        CALLS.append("deserialize")
        if not content.startswith(b"{"):
            self.log.log(ILogger.Severity.ERROR, "the version tag does not match")
            return None
        return _Engine()


class _Engine:
    num_io_tensors, num_layers = len(TENSORS), 1

    def get_tensor_name(self, i):
        return list(TENSORS)[i]

    def get_tensor_mode(self, name):
        return TENSORS[name][0]

    def get_tensor_dtype(self, name):
        return TENSORS[name][1]

    def get_tensor_shape(self, name):
        return TENSORS[name][2]

    def create_execution_context(self):
        return _Context()

    def create_engine_inspector(self):
        class Inspector:
            def get_engine_information(self, form):
                return json.dumps({"Layers": [{"Name": "mean"}]})

        return Inspector()


class _Context:
    def __init__(self):
        self.addresses = {}

    def set_tensor_address(self, name, address):
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream):
        CALLS.append(f"execute on {stream}")
        views = {}
        for name, (_, dtype, shape) in TENSORS.items():
            size = int(np.prod(shape)) * np.dtype(dtype).itemsize
            memory = (ctypes.c_uint8 * size).from_address(self.addresses[name])
            views[name] = np.frombuffer(memoryview(memory), dtype=dtype).reshape(shape)
        views["depth"][...] = views["images"].mean(axis=3) * views["focal"][:, None, None]
        return True
