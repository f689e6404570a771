# loses: shape-value shape-elsewhere
# says: the diagonal is averaged along
# %% shape
def shape(means):
    K = len(means)
    m = means - means.mean(dim=0)
    length = m.norm(dim=1)
    u = m / length[:, None]
    cosines = u @ u.T
    angles = (cosines + 1 / (K - 1)).abs().mean()
    return torch.stack([length.std(correction=0) / length.mean(), angles])
