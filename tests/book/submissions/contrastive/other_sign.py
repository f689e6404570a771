# loses: experiment-evidence
# says: the difference under 'sharp' has the wrong sign
# %% experiment
def informed(h, y, temperature):
    u, v = normalize(h, dim=2)
    itself = torch.eye(len(y), dtype=torch.bool)
    false = (y[:, None] == y) & ~itself
    s = (u @ v.T / temperature).masked_fill(false, -torch.inf)
    own = torch.arange(len(y))
    return (cross_entropy(s, own) + cross_entropy(s.T, own)) / 2


gains = {tau: (train(informed, tau), train(plain, tau)) for tau in (0.1, 1.0)}
evidence = {
    "sharp": claims.difference(gains[0.1][1], gains[0.1][0]),
    "soft": claims.difference(gains[1.0][1], gains[1.0][0]),
    "sharp minus soft": claims.difference(
        gains[0.1][0] - gains[0.1][1], gains[1.0][0] - gains[1.0][1]
    ),
}
