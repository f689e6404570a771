# loses: repaired-losses repaired-shares
# says: each row is one step late: the curvature is taken after the step
# %% repaired
def repaired(loss, start, eta, steps):
    w = start.detach().clone()
    record = []
    for _ in range(steps):
        w = w - eta * torch.func.grad(loss)(w)
        sharpness = torch.linalg.eigvalsh(torch.func.hessian(loss)(w))[-1]
        record.append(torch.stack([loss(w), eta * sharpness / 2]))
    return torch.stack(record)
