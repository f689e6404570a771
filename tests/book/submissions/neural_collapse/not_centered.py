# loses: shape-value shape-elsewhere
# says: the means are not centered
# %% shape
def shape(means):
    K = len(means)
    m = means
    length = m.norm(dim=1)
    u = m / length[:, None]
    cosines = (u @ u.T)[~torch.eye(K, dtype=torch.bool)]
    angles = (cosines + 1 / (K - 1)).abs().mean()
    return torch.stack([length.std(correction=0) / length.mean(), angles])
