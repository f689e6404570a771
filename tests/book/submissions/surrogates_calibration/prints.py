# loses: crowd-value crowd-elsewhere
# says: is None: return the value, do not print it
# %% crowd
def probability(score):
    return (1 + score / (1 + score**2).sqrt()) / 2


def weight(eta):
    return 0.5 * (eta * (1 - eta)) ** -1.5


def crowd_loss(weight, p, outcome):
    t = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    p = p.double()[:, None]
    c_ill, c_healthy = p + (1 - p) * t, p * t
    ill = ((1 - c_ill) * weight(c_ill)).mean(dim=1) * (1 - p[:, 0])
    healthy = (c_healthy * weight(c_healthy)).mean(dim=1) * p[:, 0]
    print(torch.where(outcome == 1, ill, healthy))
