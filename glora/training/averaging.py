"""An exponential moving average of the weights that training changes: torch's, over those weights alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class Average:
    """The average of some parameters over training steps.

    It costs one more copy of these parameters; the frozen weights of the model are not copied.

    Args:
        parameters: the parameters by name.
        decay: weight of the past in ``average ← decay · average + (1 − decay) · parameters``; the first update sets
            the average to the parameters.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        self._names = list(parameters)
        self._parameters = nn.ParameterList(parameters.values())
        self._average = AveragedModel(self._parameters, multi_avg_fn=get_ema_multi_avg_fn(decay)).requires_grad_(False)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The averages by the names of their parameters."""
        return dict(zip(self._names, self._average.module.parameters(), strict=True))

    def update(self) -> None:
        """Take in the parameters as they are."""
        self._average.update_parameters(self._parameters)

    @torch.no_grad()
    def apply(self) -> None:
        """Set the parameters to their averages."""
        for parameter, average in zip(self._parameters, self.tensors.values(), strict=True):
            parameter.copy_(average)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside the ``with`` block the parameters are their averages; afterwards what they were, bit for bit."""
        before = [parameter.detach().clone() for parameter in self._parameters]
        self.apply()
        try:
            yield
        finally:
            with torch.no_grad():
                for parameter, own in zip(self._parameters, before, strict=True):
                    parameter.copy_(own)

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor], updates: int) -> None:
        """Continue with the averages that `tensors` held after so many updates."""
        for name, average in self.tensors.items():
            average.copy_(tensors[name])
        self._average.n_averaged.fill_(updates)
