"""A GPU that is none: tensors that say they are on one, and compute on the CPU.

Python sees `device` "cuda:0" and everything that follows from it. As on a GPU, tensors of two devices do not go
together, none of a GPU becomes a NumPy array, and a library's operator that only CUDA has is there. What it cannot show
is time: nothing is ever late.
"""

import threading
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_flatten, tree_map

GPU = torch.device("cuda:0")
# What may have tensors of both: copies, and places in a tensor of the GPU that the CPU names.
BOTH = (
    *("aten::copy_", "aten::_to_copy", "aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"),
    *("aten::_pack_padded_sequence", "aten::_pack_padded_sequence_backward"),
)
# Of each copy to the GPU, whether it was from pinned memory, for which nothing has to wait.
COPIES: list[bool] = []


class OnGpu(Tensor):
    """A tensor on the GPU; `inner` holds its numbers."""

    @staticmethod
    def __new__(cls, inner: Tensor):
        return Tensor._make_wrapper_subclass(
            cls, inner.size(), strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype
        )

    def __init__(self, inner: Tensor):
        self.inner = inner

    device = property(lambda self: GPU)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)

    def data_ptr(self):
        return self.inner.data_ptr()

    def untyped_storage(self):
        return self.inner.untyped_storage()

    def __reduce_ex__(self, protocol):
        return self.inner.__reduce_ex__(protocol)

    def __deepcopy__(self, memo):
        copy = OnGpu(self.inner.clone())
        return nn.Parameter(copy, self.requires_grad) if isinstance(self, nn.Parameter) else copy

    def __array__(self, *_):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    def __repr__(self, **_):
        return f"OnGpu({self.inner!r})"

    @classmethod
    def __torch_dispatch__(cls, function, types, arguments=(), keywords=None):
        name = function.name().partition(".")[0]
        if "index" in name and not isinstance(arguments[0], OnGpu):
            raise RuntimeError(f"Expected all tensors to be on the same device: {name} of cpu has places on cuda:0")
        for x in tree_flatten((arguments, keywords))[0]:
            if isinstance(x, Tensor) and not isinstance(x, OnGpu) and x.dim() and name not in BOTH:
                raise RuntimeError(f"Expected all tensors to be on the same device: {name} has some on cpu and cuda:0")
        compute = ONLY_OF_CUDA.get(name, function)
        made = compute(*map_inner(arguments), **map_inner(keywords or {}))
        if made is None or (name.endswith("_") and not name.endswith("__")):
            return made if made is None else arguments[0]
        if keywords and "out" in keywords:
            return keywords["out"]
        if name in BOTH and not isinstance(arguments[0], OnGpu):
            return made
        if name == "aten::_pack_padded_sequence":
            return OnGpu(made[0]), made[1]  # how many clips each step has is the CPU's to know
        return tree_map(lambda x: OnGpu(x) if isinstance(x, Tensor) else x, made)


def map_inner(values):
    return tree_map(lambda x: x.inner if isinstance(x, OnGpu) else x, values)


def _cell(inputs, recurrent, cell, *_):
    """One step of an LSTM: hidden state, cell, and its four gates for the way back."""
    admit, forget, candidate, show = (inputs + recurrent).chunk(4, dim=1)
    gates = [admit.sigmoid(), forget.sigmoid(), candidate.tanh(), show.sigmoid()]
    cell = gates[1] * cell + gates[0] * gates[2]
    return gates[3] * cell.tanh(), cell, torch.cat(gates, dim=1)


def _cell_backward(hidden, cell, before, after, gates, has_bias):
    admit, forget, candidate, show = gates.chunk(4, dim=1)
    hidden = torch.zeros_like(after) if hidden is None else hidden
    cell = (0 if cell is None else cell) + hidden * show * (1 - after.tanh() ** 2)
    found = [
        cell * candidate * admit * (1 - admit),
        cell * before * forget * (1 - forget),
        cell * admit * (1 - candidate**2),
        hidden * after.tanh() * show * (1 - show),
    ]
    return torch.cat(found, dim=1), cell * forget, None


ONLY_OF_CUDA = {
    "aten::_thnn_fused_lstm_cell": _cell,
    "aten::_thnn_fused_lstm_cell_backward_impl": _cell_backward,
}


def is_gpu(device) -> bool:
    return device is not None and not isinstance(device, (Tensor, torch.dtype)) and "cuda" in str(device)


class Redirect(torch.overrides.TorchFunctionMode):
    """Makes tensors where they are asked for, and takes them from one device to the other."""

    def __torch_function__(self, function, types, arguments=(), keywords=None):
        keywords = dict(keywords or {})
        name = getattr(function, "__name__", "")
        if name == "__set__" and isinstance(arguments[0], OnGpu) and isinstance(arguments[1], OnGpu):  # of `data`
            arguments[0].inner = arguments[1].inner
        if name == "backward":  # which calls Python, too
            with Redirect():
                run, loss = torch.autograd.Variable._execution_engine.run_backward, arguments[0]
                return run(
                    (loss,), (torch.ones_like(loss),), False, False, (), allow_unreachable=True, accumulate_grad=True
                )
        if name == "tolist" and isinstance(arguments[0], OnGpu):
            return arguments[0].inner.tolist()
        if name == "to" and isinstance(arguments[0], Tensor):
            return _moved(*arguments, **keywords)
        if name in ("cpu", "numpy", "pin_memory", "__array__") and isinstance(arguments[0], OnGpu):
            if name != "cpu":
                raise TypeError(f"can't {name} a tensor of cuda:0")
            return arguments[0].inner.detach().clone()
        if name == "pin_memory" or keywords.pop("pin_memory", False):
            made = arguments[0].clone() if name == "pin_memory" else function(*arguments, **keywords)
            made.pinned = True
            return made
        # In the library these make tensors where their input says that it is.
        if name in ("new_tensor", "stft") and isinstance(arguments[0], OnGpu):
            return OnGpu(function(*map_inner(arguments), **map_inner(keywords)))
        if name == "_pad_packed_sequence":
            padded, lengths = function(*map_inner(arguments), **keywords)
            return OnGpu(padded), lengths
        if is_gpu(keywords.get("device")):
            keywords["device"] = torch.device("cpu")
            with _disable_current_modes():  # they are not to see where it is made
                made = function(*map_inner(arguments), **map_inner(keywords))
            return made if isinstance(made, OnGpu) else OnGpu(made)
        return function(*arguments, **keywords)


def _moved(x, *arguments, **keywords):
    """`Tensor.to` of whatever arguments it takes."""
    wanted = keywords.pop("device", None)
    rest = []
    for each in (*arguments, keywords.pop("other", None)):
        if isinstance(each, Tensor):
            wanted, keywords["dtype"] = each.device, each.dtype
        elif isinstance(each, (str, torch.device)):
            wanted = each
        elif each is not None:
            rest.append(each)
    stays = wanted is None or is_gpu(wanted) == isinstance(x, OnGpu)
    keywords.pop("non_blocking", None)
    if not stays and is_gpu(wanted):
        COPIES.append(hasattr(x, "pinned"))
    with torch._C.DisableTorchFunction():
        if stays:
            return Tensor.to(x, *rest, **keywords) if rest or keywords else x
        made = Tensor.to((x.inner if isinstance(x, OnGpu) else x).detach(), *rest, **{**keywords, "copy": True})
    return OnGpu(made) if is_gpu(wanted) else made


def _module_to(module: nn.Module, *arguments, **keywords) -> nn.Module:
    """`nn.Module.to`, which keeps its parameters' names and those that it has twice."""
    moved: dict[int, Tensor] = {}
    for each in module.modules():
        for own in (each._parameters, each._buffers):
            for name, x in own.items():
                if x is None:
                    continue
                if id(x) not in moved:
                    dtype = {"dtype": d} if (d := _floating(arguments, keywords)) and x.is_floating_point() else {}
                    device = next(
                        (a for a in (*arguments, keywords.get("device")) if isinstance(a, (str, torch.device))), None
                    )
                    value = _moved(x.detach(), device, **dtype)
                    moved[id(x)] = nn.Parameter(value, x.requires_grad) if isinstance(x, nn.Parameter) else value
                own[name] = moved[id(x)]
        if isinstance(each, nn.RNNBase):
            each._flat_weights = [getattr(each, name) for name in each._flat_weights_names]
    return module


def _floating(arguments, keywords):
    return next((a for a in (*arguments, keywords.get("dtype")) if isinstance(a, torch.dtype)), None)


class Stream:
    device, device_index = GPU, 0

    def __init__(self, *_):
        pass

    def wait_stream(self, other):
        pass

    def record_event(self):
        return Event()


class Event:
    def record(self, stream=None):
        pass

    def wait(self, stream=None):
        pass

    def synchronize(self):
        pass

    def query(self):
        return True


@contextmanager
def _stream(stream):
    yield


def _no_grad() -> bool:
    before = torch.is_grad_enabled()
    torch._C._set_grad_enabled(False)
    return before


@contextmanager
def pretended_gpu(monkeypatch, free: int = 1 << 40):
    """While the block runs torch sees one GPU, with so many bytes free."""
    autocast, states, run = torch.autocast, {}, threading.Thread.run

    def running(thread):
        with Redirect():
            run(thread)

    monkeypatch.setattr(threading.Thread, "run", running)
    for name, value in {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "set_device": lambda device: None,
        "mem_get_info": lambda device=None: (free, free),
        "is_bf16_supported": lambda including_emulation: True,
        "synchronize": lambda device=None: None,
        "Stream": Stream,
        "Event": Event,
        "stream": _stream,
        "current_stream": lambda device=None: Stream(),
        "get_rng_state": lambda device=None: torch.get_rng_state(),
        "set_rng_state": lambda state, device=None: states.update(state=state),
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    # Tensors of such a kind cannot be made in inference mode.
    monkeypatch.setattr(torch.inference_mode, "__enter__", lambda self: self.__dict__.update(grad=_no_grad()))
    monkeypatch.setattr(torch.inference_mode, "__exit__", lambda self, *_: torch._C._set_grad_enabled(self.grad))
    monkeypatch.setattr(Tensor, "record_stream", lambda self, stream: None)
    monkeypatch.setattr(nn.Module, "to", _module_to)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: None)
    monkeypatch.setattr(torch.backends.cudnn, "is_acceptable", lambda tensor: False)
    monkeypatch.setattr(
        torch, "autocast", lambda kind, *given, **more: autocast("cpu" if kind == "cuda" else kind, *given, **more)
    )
    with Redirect():
        yield
