"""The reference files: inputs, outputs, and the published state dicts by module."""

import numpy as np
import torch


class Reference:
    """One file."""

    def __init__(self, path):
        self.arrays = np.load(path)

    def __getitem__(self, key):
        return torch.from_numpy(self.arrays[key])

    def module(self, name):
        return {key.partition("/")[2]: self[key] for key in self.arrays.files if key.startswith(name + "/")}

    def inputs(self, modalities):
        return {name: self[f"in/{name}"] for name in modalities}
