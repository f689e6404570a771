# loses: crowd-elsewhere
# says: two doctors for every threshold seem to be built in
# %% crowd
def probability(score):
    return (1 + score / (1 + score**2).sqrt()) / 2


def weight(eta):
    return 0.5 * (eta * (1 - eta)) ** -1.5


def crowd_loss(weight, p, outcome):
    return (p - outcome) ** 2
