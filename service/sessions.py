"""onnxruntime, in one place: which device, which options, and one call to run a graph.

Everything that depends on CPU or GPU is decided here; the graphs and the engine are the same on both.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from service import logs
from service.errors import ModelError, StartupError

log = logs.get(__name__)

Device = Literal["auto", "cpu", "cuda"]
Array = npt.NDArray[Any]

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def choose_device(wanted: Device) -> str:
    """The device to run on. Raises StartupError where a GPU is asked for and onnxruntime cannot use one."""
    available = ort.get_available_providers()
    if wanted == "auto":
        return "cuda" if _PROVIDERS["cuda"] in available and _cuda_answers() else "cpu"
    if _PROVIDERS[wanted] not in available:
        raise StartupError(
            f"device {wanted!r}: onnxruntime {ort.__version__} has no {_PROVIDERS[wanted]} (it has "
            f"{', '.join(available)}); install gpt4rec[gpu] instead of gpt4rec[cpu], with CUDA and cuDNN libraries"
        )
    return wanted


def _cuda_answers() -> bool:
    """The provider may be compiled in where there is no GPU, or no CUDA library."""
    try:
        ort.OrtValue.ortvalue_from_numpy(np.zeros(1, np.float32), "cuda", 0)
    except Exception as error:  # onnxruntime raises plain RuntimeErrors
        log.warning("cuda_does_not_answer", cause=str(error), device="cpu")
        return False
    return True


def usable_cores() -> int:
    """Cores this process may run on: a container's share, not the host's count."""
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


class GraphSession:
    """One ONNX graph on one device, with inputs that stay on the device between runs."""

    def __init__(self, path: Path, device: str, threads: int | None = None) -> None:
        options = ort.SessionOptions()
        # Spinning threads burn the cores that the event loop needs (onnxruntime #26847).
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        options.intra_op_num_threads = threads or usable_cores()
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(str(path), options, providers=[_PROVIDERS[device]])
        except Exception as error:
            raise StartupError(f"{path.name} cannot be loaded on {device}: {error}") from error
        self._device = device
        if _PROVIDERS[device] not in self._session.get_providers():
            raise StartupError(f"{path.name}: {device} was asked for, but its libraries could not be loaded")
        self._inputs = {value.name: value.type for value in self._session.get_inputs()}
        self._outputs = [value.name for value in self._session.get_outputs()]
        self._resident: dict[str, ort.OrtValue] = {}

    @property
    def inputs(self) -> Mapping[str, str]:
        """Name → onnxruntime type string of every input."""
        return self._inputs

    @property
    def outputs(self) -> Sequence[str]:
        return self._outputs

    def on_device(self, array: Array) -> ort.OrtValue:
        return ort.OrtValue.ortvalue_from_numpy(array, self._device, 0)

    def keep(self, **arrays: Array) -> None:
        """Put inputs on the device once; every later run uses them."""
        self._resident.update({name: self.on_device(array) for name, array in arrays.items()})

    def run(self, feeds: Mapping[str, Any]) -> list[Array]:
        """Outputs in graph order. `feeds` are arrays, or values already on the device.

        Raises ModelError, whatever onnxruntime raises.
        """
        values = dict(self._resident)
        for name, value in feeds.items():
            values[name] = value if isinstance(value, ort.OrtValue) else self._feed(value)
        try:
            out = self._session.run_with_ort_values(self._outputs, values)
        except Exception as error:
            raise ModelError(f"the graph did not run: {error}") from error
        return [value.numpy() for value in out]

    def _feed(self, array: Array) -> ort.OrtValue:
        # Request-sized arrays start on the CPU; a CUDA session copies them itself.
        return ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), "cpu", 0)
