# loses: relative-value repaired-shares
# says: negative curvature counts as sharpness
# %% relative
def relative_sharpness(loss, w):
    H = torch.func.hessian(loss)(w)
    return torch.linalg.matrix_norm(w[:, None] * H * w, 2)


# %% repaired
def repaired(loss, start, eta, steps):
    w = start.detach().clone()
    record = []
    for _ in range(steps):
        sharpness = torch.linalg.matrix_norm(torch.func.hessian(loss)(w), 2)
        record.append(torch.stack([loss(w), eta * sharpness / 2]))
        w = w - eta * torch.func.grad(loss)(w)
    return torch.stack(record)
