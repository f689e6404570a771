# loses: gentle-value gentle-extremes
# says: carries no gradient
# %% gentle
def gentle(margin):
    m = margin.detach()
    root = (1 + m.square()).sqrt()
    return torch.where(m > 0, 1 / (root + m.clamp(min=0)), root - m)


def best_score(eta):
    return (2 * eta - 1) / (2 * (eta * (1 - eta)).sqrt())
