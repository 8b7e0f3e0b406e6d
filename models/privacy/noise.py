"""A stream of correlated Gaussian noise, step after step, in constant memory.

Step t gives z_t = w_t - sum_(j>=1) c_j z_(t-j): the t-th row of C^-1 w. A buffered strategy keeps
for each buffer i the sum over j of decay_i^(j-1) z_(t-j), a banded one its last z.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from models.privacy.banded import Banded
from models.privacy.buffered import BufferedToeplitz
from models.privacy.randomness import NoiseKey, label_of
from schemas.errors import LedgerBroken

Tensors = dict[str, Tensor]
Shapes = Mapping[str, tuple[int, ...]]


def shapes_of(tensors: Tensors) -> Shapes:
    """What noise for them looks like."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


class NoiseStream:
    """Noise for named tensors; the independent noise behind it has standard deviation 1.

    `state()` and `restore()` carry it over a restart to the last bit. All noise is float64 on the
    CPU, so that the same key gives the same noise whatever device learns.
    """

    def __init__(
        self, strategy: Banded | BufferedToeplitz, shapes: Shapes, key: NoiseKey, hardened: bool
    ) -> None:
        self._strategy = strategy
        self._key = key
        self._hardened = hardened
        self.step = 0
        slots = _slots(strategy)
        self._memory = {
            name: torch.zeros((slots, *shape), dtype=torch.float64)
            for name, shape in shapes.items()
        }

    def next(self, context: bytes) -> Tensors:
        """The noise of the next step.

        `context` is a digest of the round's input. Were a step ever done again with other input
        (from an old backup, say), it would get other noise: two releases with the same noise would
        tell the difference of their inputs exactly.
        """
        noise = {name: self._next(name, memory, context) for name, memory in self._memory.items()}
        self.step += 1
        return noise

    def _next(self, name: str, memory: Tensor, context: bytes) -> Tensor:
        shape = memory.shape[1:]
        label = label_of("noise", self.step, name, context)
        drawn = self._key.normals(label, shape.numel(), self._hardened)
        noise = torch.from_numpy(drawn).reshape(shape)
        if isinstance(self._strategy, Banded):
            return _through_bands(noise, memory, self._strategy.bands, self.step)
        return _through_buffers(noise, memory, self._strategy)

    def state(self) -> Tensors:
        """Everything that the next step depends on but the key; as secret as the key."""
        step = torch.tensor([self.step], dtype=torch.int64)
        return {"step": step} | {f"memory.{name}": m.clone() for name, m in self._memory.items()}

    def restore(self, state: Tensors) -> None:
        """Takes up where `state` was taken. Raises LedgerBroken where it is of another stream."""
        shapes = {f"memory.{name}": memory.shape for name, memory in self._memory.items()}
        if {name: t.shape for name, t in state.items() if name != "step"} != shapes:
            raise LedgerBroken(
                "The stored noise does not fit the adapter or its privacy plan.",
                "An adapter keeps its plan and shape for life: begin a new adapter.",
            )
        self.step = int(state["step"].item())
        for name, memory in self._memory.items():
            memory.copy_(state[f"memory.{name}"])


def _slots(strategy: Banded | BufferedToeplitz) -> int:
    if isinstance(strategy, Banded):
        return len(strategy.bands) - 1
    return len(strategy.decays)


def _through_bands(noise: Tensor, memory: Tensor, bands: tuple[float, ...], step: int) -> Tensor:
    """`memory` is a ring: the noise of step s lies at s modulo its length."""
    slots = len(memory)
    for back in range(1, slots + 1):
        noise.sub_(memory[(step - back) % slots], alpha=bands[back])
    if slots:
        memory[step % slots] = noise
    return noise


def _through_buffers(noise: Tensor, memory: Tensor, strategy: BufferedToeplitz) -> Tensor:
    for weight, buffer in zip(strategy.weights, memory, strict=True):
        noise.sub_(buffer, alpha=weight)
    for decay, buffer in zip(strategy.decays, memory, strict=True):
        buffer.mul_(decay).add_(noise)
    return noise
