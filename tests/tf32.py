"""Matrix products as a GPU makes them in TF32, on a CPU."""

import torch


def rounded(x: torch.Tensor) -> torch.Tensor:
    """To the eleven bits that TF32 keeps."""
    bits = x.float().view(torch.int32)
    return ((bits + 0x1000) & ~0x1FFF).view(torch.float32).to(x.dtype)


class RoundedProducts(torch.overrides.TorchFunctionMode):
    """Matrix products as TF32 makes them: of rounded factors, summed in single precision.

    Args:
        asked: only where torch is allowed to.
    """

    def __init__(self, asked: bool = False):
        super().__init__()
        self.asked = asked

    def __torch_function__(self, function, types, arguments=(), keywords=None):
        products = (torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__, torch.mm, torch.addmm)
        if function in products and (torch.backends.cuda.matmul.allow_tf32 or not self.asked):
            arguments = [rounded(each) for each in arguments]
        return function(*arguments, **(keywords or {}))
