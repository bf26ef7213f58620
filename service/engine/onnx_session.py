"""Graphs in onnxruntime: the options of a session, and one call to run it.

With `service.engine.placement`, this is all that depends on CPU or GPU; the graphs and the engine are the same on both.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from service.artifact.array_types import Array
from service.common.errors import ModelError, StartupError
from service.engine.placement import PROVIDERS, Placement, explain

Values = Mapping[str, ort.OrtValue]

# Memory limit of one graph's activations on a GPU; the catalogue and the weights come on top.
ARENA_BYTES_MAX = 2**30
# Bindings of one thread to one graph, by shape; the least recently used are dropped first.
_BINDINGS_MAX = 64
_NO_CAPTURE = -1
_ALONE = nullcontext()


class GraphSession:
    """One ONNX graph on one device. Safe to call from several threads: each has its own bindings."""

    def __init__(self, path: Path, placement: Placement) -> None:
        """Loads a graph.

        Raises:
            StartupError: The graph cannot be loaded, or not on this device.
        """
        self._placement = placement
        device = placement.device
        try:
            self._session = ort.InferenceSession(str(path), _options(placement), providers=[_provider(placement)])
        except Exception as error:
            raise StartupError(f"{path.name} cannot be loaded on {device}: {explain(str(error))}") from error
        if PROVIDERS[device] not in self._session.get_providers():
            raise StartupError(f"{path.name}: onnxruntime could not use device '{device}' and continued without it")
        self._inputs = {value.name: value.type for value in self._session.get_inputs()}
        self._outputs = [value.name for value in self._session.get_outputs()]
        self._bindings = _Bindings(shared=placement.capture)
        self._graph_ids = iter(range(1, 2**31))
        # A captured graph writes to the same memory at every replay.
        self._replay = threading.Lock()

    @property
    def inputs(self) -> Mapping[str, str]:
        """The onnxruntime type of every input, by name."""
        return self._inputs

    @property
    def outputs(self) -> Sequence[str]:
        """The names of the outputs."""
        return self._outputs

    def run(
        self,
        feeds: Mapping[str, Any],
        fixed: Sequence[Values] = (),
        shape: Hashable = None,
        left_out: frozenset[str] = frozenset(),
    ) -> dict[str, Array]:
        """Runs the graph. Inputs that the graph does not have are ignored.

        Args:
            feeds: Arrays, or values on the device, by input name. An object that is fed again is not bound again, so it
                must not have changed.
            fixed: Groups of values that stay between runs. A group is bound again only if it is another object than
                the last time.
            shape: Runs of one shape have outputs of one shape, whose memory is kept, and leave out the same outputs.
                None keeps no memory.
            left_out: Outputs that are not wanted: they are not copied.

        Returns:
            The other outputs by name, copied from the device.

        Raises:
            ModelError: onnxruntime raised an error.
        """
        with self._replay if self._placement.capture else _ALONE:
            try:
                binding = self._binding(shape, left_out)
                binding.fix(fixed)
                binding.feed(feeds)
                return binding.run()
            except Exception as error:
                self._bindings.mine().clear()  # a half-made binding must not be used again
                raise ModelError(f"the graph did not run: {error}") from error

    def forget_bindings(self) -> None:
        """Drops all bindings: those of rare shapes would keep the former catalogue. Runs under way keep theirs."""
        self._bindings = _Bindings(shared=self._placement.capture)

    def end_profiling(self) -> Path:
        """Ends the profile that the placement asked for and returns its file of node times."""
        return Path(self._session.end_profiling())

    def _binding(self, shape: Hashable, left_out: frozenset[str]) -> _Binding:
        """The thread's own binding for a shape. Captured graphs take turns anyway and have one for all threads."""
        bindings = self._bindings.mine()
        binding = bindings.get(shape)
        if binding is None:
            graph_id = next(self._graph_ids) if self._placement.capture and shape is not None else None
            outputs = [name for name in self._outputs if name not in left_out]
            binding = bindings[shape] = _Binding(self._session, self._inputs, outputs, self._placement, graph_id)
            binding.keeps_outputs = shape is not None
            if len(bindings) > _BINDINGS_MAX:
                bindings.popitem(last=False)
        bindings.move_to_end(shape)
        return binding


class _Bindings:
    """Bindings by shape, the least recently used first: one set for each thread, or one for all."""

    def __init__(self, *, shared: bool) -> None:
        self._shared: OrderedDict[Hashable, _Binding] | None = OrderedDict() if shared else None
        self._threads = threading.local()

    def mine(self) -> OrderedDict[Hashable, _Binding]:
        if self._shared is not None:
            return self._shared
        own: OrderedDict[Hashable, _Binding] = self._threads.__dict__.setdefault("bindings", OrderedDict())
        return own


class _Binding:
    """A graph's inputs and outputs in one thread: bound once, written again for every run."""

    def __init__(
        self,
        session: ort.InferenceSession,
        inputs: Mapping[str, str],
        outputs: Sequence[str],
        placement: Placement,
        graph_id: int | None,
    ) -> None:
        self._session, self._inputs, self._outputs, self._placement = session, inputs, outputs, placement
        self._io = session.io_binding()
        self._groups: list[Values | None] = []
        self._bound: dict[str, ort.OrtValue | Array] = {}
        self._buffers: dict[str, ort.OrtValue] = {}
        self._graph_id = graph_id
        self._captured: dict[str, ort.OrtValue | Array] | None = None
        self.keeps_outputs = False
        self._bind_outputs()

    def fix(self, groups: Sequence[Values]) -> None:
        self._groups += [None] * (len(groups) - len(self._groups))
        for place, group in enumerate(groups):
            if group is not self._groups[place]:
                for name, value in group.items():
                    self._bind(name, value)
                self._groups[place] = group

    def feed(self, feeds: Mapping[str, Any]) -> None:
        for name, value in feeds.items():
            if name not in self._inputs or self._bound.get(name) is value:
                continue
            if isinstance(value, ort.OrtValue):
                self._bind(name, value)
            elif self._graph_id is None:
                # A CUDA session copies it itself.
                self._io.bind_cpu_input(name, np.ascontiguousarray(value))
                self._bound[name] = value
            else:
                self._write(name, np.ascontiguousarray(value))

    def run(self) -> dict[str, Array]:
        if not self.keeps_outputs:
            self._bind_outputs()
        self._session.run_with_iobinding(self._io, self._run_options())
        return dict(zip(self._outputs, self._io.copy_outputs_to_cpu(), strict=True))

    def _bind(self, name: str, value: ort.OrtValue) -> None:
        if name in self._inputs and self._bound.get(name) is not value:
            self._io.bind_ortvalue_input(name, value)
            self._bound[name] = value

    def _write(self, name: str, array: Array) -> None:
        """Writes to the input's own memory on the device: a captured graph keeps its address."""
        buffer = self._buffers.get(name)
        if buffer is None or tuple(buffer.shape()) != array.shape:
            self._buffers[name] = buffer = self._placement.put(array)
        else:
            buffer.update_inplace(array)
        self._bind(name, buffer)

    def _bind_outputs(self) -> None:
        """Lets onnxruntime allocate the outputs anew: it keeps what it has allocated, and refuses another shape."""
        device = "cpu" if self._graph_id is None else self._placement.device
        for name in self._outputs:
            self._io.bind_output(name, device)

    def _run_options(self) -> ort.RunOptions | None:
        """The first set of inputs is captured. Runs with other inputs (another filter) are not replayed."""
        if not self._placement.capture:
            return None
        if self._graph_id is not None and self._captured is None:
            self._captured = dict(self._bound)
        capture = self._graph_id is not None and self._captured == self._bound
        options = ort.RunOptions()
        options.add_run_config_entry("gpu_graph_id", str(self._graph_id if capture else _NO_CAPTURE))
        return options


def _options(placement: Placement) -> ort.SessionOptions:
    options = ort.SessionOptions()
    # Spinning threads take the cores that the event loop needs (onnxruntime #26847).
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.intra_op_num_threads = placement.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if placement.profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = placement.profile
    return options


def _provider(placement: Placement) -> str | tuple[str, dict[str, str]]:
    name = PROVIDERS[placement.device]
    if placement.device == "cpu":
        return name
    return name, {
        "device_id": "0",
        "gpu_mem_limit": str(ARENA_BYTES_MAX),
        "arena_extend_strategy": "kSameAsRequested",
        "enable_cuda_graph": str(int(placement.capture)),
        "use_tf32": "0",  # TF32 would exceed the tolerance of float32 artefacts
    }
