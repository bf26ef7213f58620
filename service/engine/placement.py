"""Where graphs run: on a CPU or a GPU, with which threads and padding."""

from __future__ import annotations

import ctypes
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime as ort

from service.artifact.array_types import Array
from service.common import logs
from service.common.errors import StartupError

log = logs.get(__name__)

Device = Literal["auto", "cpu", "cuda"]

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


@dataclass(frozen=True, slots=True)
class Placement:
    """Where graphs run, and how.

    Attributes:
        device: CPU or GPU.
        threads: Threads of one run on a CPU.
        pad: Whether batches are padded to the next power of two. A GPU plans (and captures) every shape once; a CPU
            would only compute the padding.
        capture: Whether every shape is captured and replayed as one CUDA graph.
        profile: Prefix of the files that onnxruntime writes its node times to; None for no profile.
    """

    device: Literal["cpu", "cuda"]
    threads: int
    pad: bool
    capture: bool = False
    profile: str | None = None

    @classmethod
    def choose(
        cls,
        wanted: Device,
        threads: int | None = None,
        *,
        pad: bool | None = None,
        capture: bool = False,
        profile: str | None = None,
    ) -> Placement:
        """Chooses a device and its defaults.

        Args:
            wanted: "auto" takes a GPU if it can be used.
            threads: Threads of one run; by default all processors that this process may use.
            pad: Whether batches are padded; by default on a GPU only.
            capture: Whether shapes are captured as CUDA graphs.
            profile: Prefix of the profile's files.

        Raises:
            StartupError: A GPU is required and cannot be used.
        """
        device = choose_device(wanted)
        if capture and device != "cuda":
            raise StartupError("CUDA graphs need device cuda")
        return cls(device, threads or usable_cores(), device == "cuda" if pad is None else pad, capture, profile)

    def rows(self, n: int) -> int:
        """Returns the size that a batch of `n` rows runs at."""
        return 1 << (n - 1).bit_length() if self.pad else n

    def put(self, array: Array) -> ort.OrtValue:
        """Puts an array on the device; a CPU shares the array's memory."""
        return ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), self.device, 0)

    def refresh(self, value: ort.OrtValue, array: Array) -> None:
        """Writes to a value what has changed in the array it was put from, which a CPU does not need."""
        if self.device != "cpu":
            value.update_inplace(np.ascontiguousarray(array))

    def host(self, array: Array) -> ort.OrtValue:
        """Puts an array in the host's memory, where operators read shapes and counts on every device."""
        return ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), "cpu", 0)


def choose_device(wanted: Device) -> Literal["cpu", "cuda"]:
    """Returns the device to run on.

    Raises:
        StartupError: A GPU is required and onnxruntime cannot use one.
    """
    available = ort.get_available_providers()
    has_cuda = PROVIDERS["cuda"] in available
    if wanted == "auto":
        return "cuda" if has_cuda and _cuda_problem() is None else "cpu"
    if wanted == "cpu":
        return "cpu"
    if not has_cuda:
        raise StartupError(
            f"device 'cuda': onnxruntime {ort.__version__} has no CUDAExecutionProvider (it has "
            f"{', '.join(available)}); install gpt4rec[gpu] instead of gpt4rec[cpu]"
        )
    if (problem := _cuda_problem()) is not None:
        raise StartupError(f"device 'cuda' cannot be used: {problem}")
    return "cuda"


def _cuda_problem() -> str | None:
    """Why CUDA does not work, or None. The provider may be compiled in without a GPU or a CUDA library being there."""
    missing = _missing_library()
    if missing is not None:
        return (
            f"the library {missing} is missing; install the CUDA and cuDNN that onnxruntime-gpu was built for "
            "(pip install 'onnxruntime-gpu[cuda,cudnn]'), or put them on LD_LIBRARY_PATH"
        )
    try:
        ort.OrtValue.ortvalue_from_numpy(np.zeros(1, np.float32), "cuda", 0)
    except Exception as error:  # onnxruntime raises plain RuntimeErrors
        log.warning("cuda_does_not_answer", cause=str(error))
        return explain(str(error))
    return None


def _missing_library() -> str | None:
    """The first library that the CUDA provider needs and the loader does not find.

    onnxruntime only prints its name and continues on the CPU, so the provider is loaded here first.
    """
    ort.preload_dlls()  # the libraries that pip has installed
    folder = Path(ort.__file__).parent / "capi"
    for name in ("libonnxruntime_providers_shared.so", "libonnxruntime_providers_cuda.so"):
        if not (folder / name).exists():
            continue
        try:
            ctypes.CDLL(str(folder / name), ctypes.RTLD_GLOBAL)
        except OSError as error:
            library = missing_library(str(error))
            if library is not None:
                return library
    return None


def missing_library(message: str) -> str | None:
    """Returns the library that a loader's error message names, or None."""
    match = re.search(r"([\w.+-]+\.so[\d.]*): cannot open shared object file", message)
    match = match or re.search(r'(?:depends on|Error loading) "?([\w.+\\/:-]+\.dll)"? which is missing', message)
    return match.group(1) if match else None


def explain(message: str) -> str:
    """Returns onnxruntime's message, led by the missing library if it names one."""
    library = missing_library(message)
    return message if library is None else f"the library {library} is missing ({message})"


def usable_cores() -> int:
    """Returns the number of cores this process may use: a container's share, not the host's count."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        cores = os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text("utf-8").split()
        cores = min(cores, max(1, int(quota) // int(period)))
    except (OSError, ValueError):  # no cgroup v2, or no limit ("max")
        pass
    return cores
