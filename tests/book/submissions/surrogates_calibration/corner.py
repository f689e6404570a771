# loses: gentle-extremes
# says: at margin zero: a corner such as that of
# %% gentle
def gentle(margin):
    root = (1 + margin.square()).sqrt()
    return 1 / (root + margin.abs()) + 2 * (-margin).clamp(min=0)


def best_score(eta):
    return (2 * eta - 1) / (2 * (eta * (1 - eta)).sqrt())
