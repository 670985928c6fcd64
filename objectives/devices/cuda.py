"""The few things of CUDA that an engine needs: buffers, one stream, events, a captured graph.

Imports ``cuda.bindings``; only the TensorRT path may import this module.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from cuda.bindings import __version__ as bindings_version
from cuda.bindings import driver
from cuda.bindings import runtime as cudart
from numpy.typing import DTypeLike, NDArray

_OUT_OF_MEMORY = ("cudaErrorMemoryAllocation", "CUDA_ERROR_OUT_OF_MEMORY")


class CudaError(RuntimeError):
    """A CUDA call failed; the context may be unusable from here on, so the process must end."""


class DeviceMemoryError(MemoryError):
    """The GPU has too little free memory; the context is still good."""


def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a function of CUDA's runtime or driver and returns its values.

    Raises:
        DeviceMemoryError: Out of device memory.
        CudaError: Any other error; names the function and the error.
    """
    status, *values = function(*arguments)
    if status.value != 0:
        name = status.name
        if name in _OUT_OF_MEMORY:
            raise DeviceMemoryError(f"{function.__name__}: the GPU is out of memory; free some of it")
        raise CudaError(f"{function.__name__}: {name}")
    return values[0] if len(values) == 1 else tuple(values)


class DeviceBuffer:
    """Memory on the GPU with a page-locked twin on the host, so that copies run beside other work.

    Attributes:
        host: The twin, of `shape` and `dtype`.
        address: Device address.
    """

    def __init__(self, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        self._bytes = max(1, int(np.prod(shape)) * np.dtype(dtype).itemsize)
        self.address = int(call(cudart.cudaMalloc, self._bytes))
        try:
            self._pinned = int(call(cudart.cudaMallocHost, self._bytes))
        except BaseException:
            cudart.cudaFree(self.address)
            raise
        raw = (ctypes.c_byte * self._bytes).from_address(self._pinned)
        self.host: NDArray[Any] = np.ctypeslib.as_array(raw).view(dtype)[: int(np.prod(shape))].reshape(shape)

    def upload(self, stream: Stream) -> None:
        """Copies the host's twin to the device, in the stream's order."""
        kind = cudart.cudaMemcpyKind.cudaMemcpyHostToDevice
        call(cudart.cudaMemcpyAsync, self.address, self._pinned, self._bytes, kind, stream.handle)

    def download(self, stream: Stream) -> None:
        """Copies the device's memory to the host's twin, in the stream's order."""
        kind = cudart.cudaMemcpyKind.cudaMemcpyDeviceToHost
        call(cudart.cudaMemcpyAsync, self._pinned, self.address, self._bytes, kind, stream.handle)

    def free(self) -> None:
        """Gives both back; errors are left to the next call, as this also runs after one."""
        cudart.cudaFree(self.address)
        cudart.cudaFreeHost(self._pinned)


class Stream:
    """One stream of work.

    Args:
        device: Index of the GPU among the visible ones.
    """

    def __init__(self, device: int = 0) -> None:
        self._device = device
        self.use()
        self.handle = int(call(cudart.cudaStreamCreateWithFlags, cudart.cudaStreamNonBlocking))

    def use(self) -> None:
        """Makes this device the calling thread's."""
        call(cudart.cudaSetDevice, self._device)

    def wait(self) -> None:
        """Waits until all work in it is done."""
        call(cudart.cudaStreamSynchronize, self.handle)

    def capture(self, enqueue: Callable[[], None]) -> Graph:
        """Records what `enqueue` puts into the stream as a graph.

        Raises:
            CudaError: Something in it cannot be captured; the stream is usable again.
        """
        mode = cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        call(cudart.cudaStreamBeginCapture, self.handle, mode)
        try:
            enqueue()
        except BaseException:
            cudart.cudaStreamEndCapture(self.handle)
            raise
        return Graph(call(cudart.cudaStreamEndCapture, self.handle))


@lru_cache
def shared_stream(device: int) -> Stream:
    """The process's stream on a device: engines that are timed against each other must not run side by side."""
    return Stream(device)


def switch_contexts(device: int) -> None:
    """Has the GPU work in another context for a moment, one made for this, and come back.

    Where an engine was loaded several times, as `placing` does it, all that is loaded runs slower until then: on an
    H100 (driver 580, TensorRT 8.6) yolov8n took .524 ms in fp16 and .404 in int8 without a switch, .485 and .383 with
    one, a ratio of .771 against .789 (`tests/benchmarks/context_switch.py`). Loaded once it was fast from the start.
    Waiting, load on the host and a switch before loading changed nothing; another process that made a context did, so
    a study's first latencies differed from its later ones.

    Args:
        device: Index of the GPU among the visible ones.

    Raises:
        DeviceMemoryError: The GPU has too little free memory for a second context, about half a GiB.
        CudaError: CUDA failed.
    """
    call(cudart.cudaSetDevice, device)
    # From version 13 on the bindings' first argument is a list of options.
    options = () if int(bindings_version.split(".")[0]) < 13 else (None,)
    context = call(driver.cuCtxCreate, *options, 0, call(driver.cuDeviceGet, device))
    try:
        address = call(driver.cuMemAlloc, 1)
        call(driver.cuMemsetD8, address, 0, 1)
        call(driver.cuCtxSynchronize)
    except BaseException:
        driver.cuCtxDestroy(context)
        raise
    call(driver.cuCtxDestroy, context)  # gives its memory back; the one before is current again


class Graph:
    """A captured piece of work, ready to be launched many times."""

    def __init__(self, captured: Any) -> None:
        self._captured = captured
        self._ready = call(cudart.cudaGraphInstantiate, captured, 0)

    def launch(self, stream: Stream) -> None:
        """Starts it in the stream."""
        call(cudart.cudaGraphLaunch, self._ready, stream.handle)

    def free(self) -> None:
        """Gives it back."""
        cudart.cudaGraphExecDestroy(self._ready)
        cudart.cudaGraphDestroy(self._captured)


class Span:
    """Two events around a piece of work in a stream."""

    def __init__(self) -> None:
        self._begin = call(cudart.cudaEventCreate)
        self._end = call(cudart.cudaEventCreate)

    def begin(self, stream: Stream) -> None:
        """Marks the begin."""
        call(cudart.cudaEventRecord, self._begin, stream.handle)

    def end(self, stream: Stream) -> None:
        """Marks the end."""
        call(cudart.cudaEventRecord, self._end, stream.handle)

    def seconds(self) -> float:
        """Waits for the end and returns the time between both, seconds (resolution about half a microsecond)."""
        call(cudart.cudaEventSynchronize, self._end)
        return float(call(cudart.cudaEventElapsedTime, self._begin, self._end)) / 1000

    def free(self) -> None:
        """Gives both events back."""
        cudart.cudaEventDestroy(self._begin)
        cudart.cudaEventDestroy(self._end)


def write_out_of_bounds() -> None:
    """Provokes an illegal memory access, for fault tests: a kernel writes to an address that nobody allocated.

    Raises:
        CudaError: Always; the context is lost afterwards.
    """
    call(cudart.cudaFree, 0)  # makes the context
    source = (
        ".version 6.3\n.target sm_75\n.address_size 64\n"
        ".visible .entry fault() { .reg .b64 %a; mov.u64 %a, 64; st.global.u64 [%a], %a; ret; }\n"
    )
    module = call(driver.cuModuleLoadData, source.encode() + b"\0")
    function = call(driver.cuModuleGetFunction, module, b"fault")
    driver.cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0)
    call(cudart.cudaDeviceSynchronize)
