from functools import reduce

import torch
from torch import Tensor


def upcast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors in the widest of their dtypes and float32; torchvision wants one dtype, on CPU not half."""
    dtype = reduce(torch.promote_types, (tensor.dtype for tensor in tensors), torch.float32)
    return tuple(tensor.to(dtype) for tensor in tensors)
