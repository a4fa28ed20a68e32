"""TensorRT takes a bundle's INT8 graph as it is, and its depth stays within the gate's budget."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fsmde_edge.bundle import open_bundle
from fsmde_edge.evaluation.gate import FARTHER_BY, GateBudget

pytestmark = pytest.mark.tensorrt

GLOBAL = 1  # CU_MEM_ATTACH_GLOBAL: managed memory that every stream may use


@pytest.fixture
def driver() -> ctypes.CDLL:
    """The driver, with the first GPU's primary context current: the one that TensorRT uses."""
    library, context = ctypes.CDLL("libcuda.so.1"), ctypes.c_void_p()
    done(library.cuInit(0))
    done(library.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0))
    done(library.cuCtxSetCurrent(context))
    return library


@pytest.fixture
def bundle(small_bundle):
    return open_bundle(small_bundle)


def test_the_int8_graph_builds_strongly_typed_and_agrees_with_fp32(driver, bundle):
    golden, fp32 = bundle.golden(), bundle.golden().depth["fp32"].astype(np.float64)
    plan = build(bundle.model("int8-fp16"))
    depth = infer(driver, plan, {"images": golden.images, "focal": golden.focal})["depth"]
    signed = (depth.astype(np.float64) - fp32) / fp32
    budget = GateBudget()
    assert np.isfinite(signed).all()
    assert np.abs(signed).mean() <= budget.deviation
    assert np.percentile(np.abs(signed), 99) <= budget.p99
    assert (signed > FARTHER_BY).mean() <= budget.farther


def build(path: Path) -> bytes:
    """An ONNX file to a plan, every tensor of the type that the graph says (Python API of 10.3 and later)."""
    import tensorrt as trt

    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    # Later versions know no other typing, and no flag for it.
    strong = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if strong is None else 1 << int(strong))
    parser = trt.OnnxParser(network, logger)
    parsed = parser.parse(path.read_bytes())
    assert parsed, [parser.get_error(i).desc() for i in range(parser.num_errors)]
    plan = builder.build_serialized_network(network, builder.create_builder_config())
    assert plan is not None, "the builder refused the network; its messages stand above"
    return bytes(plan)


def infer(
    driver: ctypes.CDLL, plan: bytes, inputs: Mapping[str, NDArray]
) -> Mapping[str, NDArray[np.float32]]:
    """One inference through managed memory, which both sides see: copies are not what is tested here."""
    import tensorrt as trt

    runtime = trt.Runtime(trt.Logger(trt.Logger.WARNING))
    engine = runtime.deserialize_cuda_engine(plan)
    context = engine.create_execution_context()
    arrays: dict[str, NDArray] = {}
    for name in (engine.get_tensor_name(i) for i in range(engine.num_io_tensors)):
        dtype = np.dtype(trt.nptype(engine.get_tensor_dtype(name)))
        arrays[name] = managed(driver, tuple(engine.get_tensor_shape(name)), dtype)
        arrays[name][...] = inputs.get(name, 0)
        context.set_tensor_address(name, arrays[name].ctypes.data)
    assert set(inputs) < set(arrays)
    assert context.execute_async_v3(0)
    done(driver.cuCtxSynchronize())
    return {name: np.array(array) for name, array in arrays.items() if name not in inputs}


def managed(driver: ctypes.CDLL, shape: tuple[int, ...], dtype: np.dtype) -> NDArray:
    """An array in managed memory; the process's end frees it."""
    size, pointer = int(np.prod(shape)) * dtype.itemsize, ctypes.c_uint64()
    done(driver.cuMemAllocManaged(ctypes.byref(pointer), ctypes.c_size_t(size), GLOBAL))
    return np.frombuffer((ctypes.c_uint8 * size).from_address(pointer.value), dtype).reshape(shape)


def done(result: int) -> None:
    """Refuse anything but CUDA_SUCCESS."""
    assert result == 0, f"CUDA driver error {result}"
