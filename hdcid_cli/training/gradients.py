"""Gradients summed over the processes while backward still runs."""

from collections.abc import Callable, Iterable, Sequence

from torch import Tensor
from torch.nn import Parameter

from hdcid_cli.core.distributed import World, fill

# Of the gradients that are sent together; the first is on its way when so many are there.
BUCKET_BYTES = 32 << 20


class GradientSum:
    """Sums the gradients of one step over the ranks.

    Parameters fill buckets in the order in which the last step gave them gradients, as the first rank saw it. A bucket
    is sent as soon as it is full and all before it are sent: every rank sends the same ones in the same order, whatever
    its own order was. What had no gradient in the last step is sent at the end.

    Args:
        own: parameters of which each rank has the gradient of its own clips.
        shared: parameters whose gradients are alike on all ranks, but for the order in which a GPU may add; the mean
            keeps the ranks together.
    """

    def __init__(
        self, own: Iterable[Parameter], shared: Iterable[Parameter], world: World, bucket_bytes: int = BUCKET_BYTES
    ):
        self._world, self._bucket_bytes = world, bucket_bytes
        shared = list(shared)
        self._shared = set(shared)
        self._parameters = list(dict.fromkeys([*own, *shared]))
        self._came: list[Parameter] = []
        self._buckets: list[list[Parameter]] = []
        self._missing: list[int] = []  # of each bucket
        self._place: dict[Parameter, int] = {}
        self._sent: list[Callable[[], None]] = []
        if world.size > 1:
            for parameter in self._parameters:
                parameter.register_post_accumulate_grad_hook(self._arrive)

    def _arrive(self, parameter: Tensor) -> None:
        assert isinstance(parameter, Parameter) and parameter.grad is not None
        if parameter in self._shared:
            parameter.grad /= self._world.size
        self._came.append(parameter)
        if (place := self._place.get(parameter)) is not None:
            self._missing[place] -= 1
            while len(self._sent) < len(self._buckets) and self._missing[len(self._sent)] == 0:
                self._send(self._buckets[len(self._sent)])

    def _send(self, bucket: Sequence[Parameter]) -> None:
        self._sent.append(self._world.begin_sum([each.grad for each in bucket if each.grad is not None]))

    def finish(self, more: Iterable[Tensor] = ()) -> None:
        """After backward: all gradients are sums from here on, and so is what else is to be summed."""
        if self._world.size == 1:
            return
        came = set(self._came)
        for bucket in self._buckets[len(self._sent) :]:
            if there := [each for each in bucket if each in came]:
                self._send(there)
        late = [each.grad for each in self._parameters if each in came and each not in self._place]
        self._world.sum_([*(grad for grad in late if grad is not None), *more])
        for end in self._sent:
            end()
        if came != self._place.keys():
            self._plan()
        self._came, self._sent = [], []
        self._missing = [len(bucket) for bucket in self._buckets]

    def _plan(self) -> None:
        number = {parameter: place for place, parameter in enumerate(self._parameters)}
        order = self._world.collect([number[parameter] for parameter in self._came])[0]
        self._buckets = fill([self._parameters[place] for place in order], self._bucket_bytes)
        self._place = {each: place for place, bucket in enumerate(self._buckets) for each in bucket}
