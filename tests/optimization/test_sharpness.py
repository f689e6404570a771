"""SAM against its definition, step by step."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lossbook.optimization.sharpness import SAM


def problem() -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    return model, torch.randn(12, 4, dtype=torch.float64), torch.arange(12) % 3


def closure_of(optimizer, model, x, y):
    def closure() -> Tensor:
        optimizer.zero_grad()
        value = cross_entropy(model(x), y)
        value.backward()
        return value

    return closure


def test_sam_is_its_definition_with_momentum_on_top() -> None:
    model, x, y = problem()
    twin = copy.deepcopy(model)
    sam = SAM(model.parameters(), partial(torch.optim.SGD, lr=0.1, momentum=0.9), rho=0.3)
    closure = closure_of(sam, model, x, y)
    velocity = [torch.zeros_like(p) for p in twin.parameters()]
    for step in range(4):
        value = sam.step(closure)

        own = list(twin.parameters())
        loss = cross_entropy(twin(x), y)
        torch.testing.assert_close(value, loss)
        g = torch.autograd.grad(loss, own)
        norm = sum(float(part.square().sum()) for part in g) ** 0.5
        shifted = copy.deepcopy(twin)
        with torch.no_grad():
            for p, part in zip(shifted.parameters(), g, strict=True):
                p.add_(part, alpha=0.3 / norm)
        g = torch.autograd.grad(cross_entropy(shifted(x), y), list(shifted.parameters()))
        with torch.no_grad():
            for i, (p, part) in enumerate(zip(own, g, strict=True)):
                velocity[i] = 0.9 * velocity[i] + part if step else part.clone()
                p.sub_(velocity[i], alpha=0.1)
        for p, q in zip(model.parameters(), own, strict=True):
            torch.testing.assert_close(p, q)


def test_with_rho_zero_it_is_the_base_optimizer() -> None:
    model, x, y = problem()
    twin = copy.deepcopy(model)
    sam = SAM(model.parameters(), partial(torch.optim.Adam, lr=0.01), rho=0.0)
    adam = torch.optim.Adam(twin.parameters(), lr=0.01)
    for _ in range(3):
        sam.step(closure_of(sam, model, x, y))
        adam.step(closure_of(adam, twin, x, y))
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(p, q)


def test_a_gradient_of_zero_stays_where_it_is() -> None:
    w = nn.Parameter(torch.zeros(2))
    sam = SAM([w], partial(torch.optim.SGD, lr=1.0), rho=0.5)

    def closure() -> Tensor:
        sam.zero_grad()
        value = w.square().sum()
        value.backward()
        return value

    sam.step(closure)
    assert torch.equal(w.data, torch.zeros(2))


def test_parameters_without_a_gradient_are_left_alone() -> None:
    w, idle = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    sam = SAM([w, idle], partial(torch.optim.SGD, lr=0.1))

    def closure() -> Tensor:
        sam.zero_grad()
        value = w.square().sum()
        value.backward()
        return value

    sam.step(closure)
    assert torch.equal(idle.data, torch.ones(2)) and not torch.equal(w.data, torch.ones(2))


def test_groups_schedules_and_saving() -> None:
    model, x, y = problem()
    groups = [{"params": model[0].parameters(), "rho": 0.0}, {"params": model[2].parameters()}]
    sam = SAM(groups, partial(torch.optim.SGD, lr=0.1, momentum=0.9), rho=0.2)
    assert [group["rho"] for group in sam.param_groups] == [0.0, 0.2]
    schedule = torch.optim.lr_scheduler.StepLR(sam.base_optimizer, 1, gamma=0.5)
    closure = closure_of(sam, model, x, y)
    sam.step(closure)
    schedule.step()
    assert all(group["lr"] == 0.05 for group in sam.param_groups)

    twin = copy.deepcopy(model)
    groups = [{"params": twin[0].parameters(), "rho": 0.0}, {"params": twin[2].parameters()}]
    other = SAM(groups, partial(torch.optim.SGD, lr=0.1, momentum=0.9), rho=0.2)
    other.load_state_dict(copy.deepcopy(sam.state_dict()))
    sam.step(closure)
    other.step(closure_of(other, twin, x, y))
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, q)


def test_rho_below_zero_is_refused() -> None:
    w = nn.Parameter(torch.ones(2))
    base = partial(torch.optim.SGD, lr=0.1)
    with pytest.raises(ValueError, match="rho must be at least 0, got -1"):
        SAM([w], base, rho=-1)
    with pytest.raises(ValueError, match="rho must be at least 0"):
        SAM([{"params": [w], "rho": -0.5}], base)
