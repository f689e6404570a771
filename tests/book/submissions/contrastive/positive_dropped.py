# loses: informed-value experiment-evidence
# says: is the positive among the candidates still?
# %% experiment
def informed(h, y, temperature):
    u, v = normalize(h, dim=2)
    s = (u @ v.T / temperature).masked_fill(y[:, None] == y, -torch.inf)
    own = torch.arange(len(y))
    return (cross_entropy(s, own) + cross_entropy(s.T, own)) / 2


gains = {tau: (train(informed, tau), train(plain, tau)) for tau in (0.1, 1.0)}
