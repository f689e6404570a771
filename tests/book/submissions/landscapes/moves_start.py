# loses: repaired-manners
# says: the caller's start has moved: descend from a copy
# %% repaired
def repaired(loss, start, eta, steps):
    record = []
    for _ in range(steps):
        sharpness = torch.linalg.eigvalsh(torch.func.hessian(loss)(start))[-1]
        record.append(torch.stack([loss(start), eta * sharpness / 2]))
        start -= eta * torch.func.grad(loss)(start)
    return torch.stack(record)
