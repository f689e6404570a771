# loses: gentle-extremes
# says: two nearly equal numbers were subtracted
# %% gentle
def gentle(margin):
    return (1 + margin.square()).sqrt() - margin


def best_score(eta):
    return (2 * eta - 1) / (2 * (eta * (1 - eta)).sqrt())
