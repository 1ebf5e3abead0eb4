"""A training step recorded once and played again and again, so that a GPU gets all its operators in one message.

A GPU computes many of a step's operators faster than Python can ask for them. A CUDA graph asks for all of them at
once. What is recorded is what the device did: whatever the program itself decided or put into the device's memory on
the way would be the same in every step. So nothing of that kind may happen in a recorded step, and what changes from
step to step stands in memory that the step reads: the batch, the random numbers and the learning rate.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hdcid_cli.core.draws import StepDraws

Tensors = dict[str, Tensor]

# Steps that are computed before one is recorded: libraries choose their kernels and memory in the first ones.
WARM_UP = 3

# Operators whose result, or the shape of it, the program must know before it goes on.
WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero", "equal.", "bincount", "item")


class Rules(TorchDispatchMode):
    """Notes what a recorded step must not have, in a step that is computed within it.

    Args:
        device: where the step computes; every tensor in it has to lie there.

    Attributes:
        broken: what was found, such as "aten.nonzero.default waits for the device".
    """

    def __init__(self, device: torch.device):
        super().__init__()
        self._kind = device.type
        self.broken: list[str] = []

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        name = str(function).removeprefix("aten.")
        by_mask = name.startswith("index") and any(
            torch.is_tensor(x) and x.dtype in (torch.bool, torch.uint8)
            for x in tree_leaves(arguments[1] if len(arguments) > 1 else ())
        )
        if name.startswith(WAITING) or by_mask:
            self.broken.append(f"{name} waits for the device")
        made = function(*arguments, **(keywords or {}))
        for tensor in tree_leaves((arguments, keywords, made)):
            if torch.is_tensor(tensor) and tensor.device.type != self._kind:
                self.broken.append(f"{name} has a tensor on the {tensor.device.type}")
        return made


class Recorder(Protocol):
    """What records a device's work."""

    def beside(self) -> Any:
        """Around steps that are computed before one is recorded."""

    def record(self, work: Callable[[], Any]) -> tuple[Any, Callable[[], None]]:
        """What `work` returns, in memory that is filled by calling the second."""


class CudaRecorder:
    """Records CUDA graphs."""

    def __init__(self, device: torch.device):
        self._device, self._stream = device, torch.cuda.Stream(device)

    @contextmanager
    def beside(self) -> Iterator[None]:
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            yield
        current.wait_stream(self._stream)

    def record(self, work: Callable[[], Any]) -> tuple[Any, Callable[[], None]]:
        graph, before = torch.cuda.CUDAGraph(), torch.cuda.current_stream(self._device)
        state = torch.cuda.get_rng_state(self._device)
        try:
            # The thread that reads ahead may ask for memory meanwhile.
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                made = work()
        except RuntimeError:
            # torch leaves its stream in place then and, before 2.13, a generator that draws in recordings alone.
            torch.cuda.set_stream(before)
            fresh = torch.Generator(before.device)
            fresh.set_state(state)
            torch.cuda.default_generators[before.device_index].graphsafe_set_state(fresh)
            raise
        return made, graph.replay


class CapturedStep:
    """Computes steps, and plays those that it has recorded.

    Args:
        compute: features and the number of layers that take part -> what a step measured. It must leave everything
            that it changes in the memory where it found it.
        device: where it computes.
        recorder: what records it.
        refused: called with the reason if a step cannot be recorded; from then on every step is computed.
    """

    def __init__(
        self,
        compute: Callable[[Tensors, int], Tensors],
        device: torch.device,
        recorder: Recorder,
        refused: Callable[[str], None],
    ):
        self._compute, self._device, self._recorder, self._refused = compute, device, recorder, refused
        self._drawn: dict[tuple, StepDraws] = {}
        self._computed: Counter[tuple] = Counter()
        self._recorded: dict[tuple, _Recorded] = {}
        self.gave_up = False

    def __call__(self, features: Tensors, active: int) -> Tensors:
        key = (active, *((name, x.shape, x.dtype) for name, x in features.items()))
        if not self.gave_up and self._computed[key] >= WARM_UP and key not in self._recorded:
            self._record(key, features, active)
        if key in self._recorded:
            return self._recorded[key].play(features)
        if self.gave_up:
            return self._compute(features, active)
        self._computed[key] += 1
        drawn, rules = self._drawn.setdefault(key, StepDraws()), Rules(self._device)
        with self._recorder.beside(), drawn.noted(), rules if self._computed[key] == WARM_UP else nullcontext():
            measured = self._compute(features, active)
        for reason in [drawn.chosen, *rules.broken]:
            if reason and not self.gave_up:
                self._give_up(reason)
        return measured

    def _give_up(self, reason: str) -> None:
        self.gave_up, self._recorded = True, {}
        self._refused(reason)

    def _record(self, key: tuple, features: Tensors, active: int) -> None:
        kept = {name: x.clone() for name, x in features.items()}
        drawn = self._drawn[key]
        try:
            with drawn.served():
                made, play = self._recorder.record(lambda: _packed(self._compute(kept, active)))
        except RuntimeError as error:  # of the library; the device has done nothing
            first = error  # what ends a recording that has failed says only that it has
            while isinstance(first.__context__, RuntimeError):
                first = first.__context__
            self._give_up(str(first).splitlines()[0])
        else:
            # What fewer layers did is not played again, and its memory can go.
            self._recorded = {of: step for of, step in self._recorded.items() if of[0] == active}
            self._recorded[key] = _Recorded(kept, drawn, made, play)


class _Recorded:
    """One recorded step."""

    def __init__(self, features: Tensors, drawn: StepDraws, made: "Packed", play: Callable[[], None]):
        self._features, self._drawn, self._play = features, drawn, play
        self._names, self._made = made

    def play(self, features: Tensors) -> Tensors:
        for name, kept in self._features.items():
            kept.copy_(features[name], non_blocking=True)
        self._drawn.again()
        self._play()
        found: Tensors = {}
        for names, values in self._made:  # the next step writes where this one did
            found |= zip(names, values.clone().unbind())
        return {name: found[name] for name in self._names}


# Names in their order; then names of one kind and shape, and their values in one tensor [N, ...].
Packed = tuple[list[str], list[tuple[list[str], Tensor]]]


def _packed(measured: Tensors) -> Packed:
    alike: dict[tuple, list[str]] = {}
    for name, value in measured.items():
        alike.setdefault((value.dtype, value.shape), []).append(name)
    return list(measured), [(names, torch.stack([measured[name] for name in names])) for names in alike.values()]
