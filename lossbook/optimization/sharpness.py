"""Sharpness-aware training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lossbook._contract import require

__all__ = ["SAM"]


class SAM(torch.optim.Optimizer):
    r"""Sharpness-aware minimization: descend with the gradient from the worst point nearby.

    .. math:: w \leftarrow \text{base step with } \nabla L(w + \epsilon), \qquad
        \epsilon = \rho\, \frac{\nabla L(w)}{\|\nabla L(w)\|}

    The norm is over all parameters together. Each step needs the gradient twice, so it takes a
    closure; the base optimizer keeps its own state (momentum, moments).

    Args:
        params: Parameters or groups of them, in which ``rho`` may be set for the group.
        base_optimizer: A function of the groups that makes an optimizer, for example
            ``partial(torch.optim.SGD, lr=0.1, momentum=0.9)``.
        rho: :math:`\rho`, at least 0: the distance of the ascent. At 0 the base optimizer is left.

    Raises:
        ValueError: If rho is negative.

    Source: ``foret2020sharpnessaware``.

    Pitfall: dropout and batch statistics are drawn anew in the second pass, and running averages
    see the shifted weights: use group or layer normalization, or freeze the averages.

    Example:
        >>> w = torch.tensor([1.0], requires_grad=True)
        >>> sam = SAM([w], lambda groups: torch.optim.SGD(groups, lr=0.5), rho=1.0)
        >>> def closure():
        ...     sam.zero_grad()
        ...     loss = w.square().sum() / 2
        ...     loss.backward()
        ...     return loss
        >>> sam.step(closure)  # the loss at w
        tensor(0.5000, grad_fn=<DivBackward0>)
        >>> w.data  # the gradient is the one at w + 1
        tensor([0.])
    """

    def __init__(
        self,
        params: Any,
        base_optimizer: Callable[[Any], torch.optim.Optimizer],
        rho: float = 0.05,
    ) -> None:
        require(rho >= 0, "rho", rho, "at least 0")
        super().__init__(params, {"rho": rho})
        for group in self.param_groups:
            require(group["rho"] >= 0, "rho", group["rho"], "at least 0")
        self.base_optimizer = base_optimizer(self.param_groups)
        # Groups and state are one and the same, for schedules and for saving.
        self.param_groups = self.base_optimizer.param_groups
        self.state = self.base_optimizer.state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads what ``state_dict()`` gave, the base optimizer's state included."""
        super().load_state_dict(state_dict)
        self.base_optimizer.param_groups = self.param_groups
        self.base_optimizer.state = self.state

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor]) -> Tensor:  # type: ignore[override]
        """One step; ``closure`` clears the gradients, computes the loss and its gradients."""
        with torch.enable_grad():
            value = closure()
        shifts = self._climb()
        with torch.enable_grad():
            closure()
        for p, before in shifts:
            p.copy_(before)
        self.base_optimizer.step()
        return value

    def _climb(self) -> list[tuple[Tensor, Tensor]]:
        """Moves the parameters to w + epsilon; returns where they were, to the bit."""
        live = [
            (p, group["rho"]) for group in self.param_groups for p in group["params"]
            if p.grad is not None
        ]  # fmt: skip
        if not live:
            return []
        norm = torch.stack([p.grad.norm() for p, _ in live]).norm()
        # At a gradient of zero there is no direction to climb, and the step is the base's.
        scale = torch.where(norm > 0, 1 / norm, 0)
        before = [(p, p.clone()) for p, _ in live]
        for p, rho in live:
            p.add_(p.grad * scale, alpha=rho)
        return before
