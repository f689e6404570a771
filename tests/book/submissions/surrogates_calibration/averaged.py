# loses: gentle-value gentle-extremes
# says: look at what is summed or averaged
# %% gentle
def gentle(margin):
    root = (1 + margin.square()).sqrt()
    right = 1 / (root + margin.clamp(min=0))
    return torch.where(margin > 0, right, root - margin).mean()


def best_score(eta):
    return (2 * eta - 1) / (2 * (eta * (1 - eta)).sqrt())
