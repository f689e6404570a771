# loses: shape-value shape-elsewhere
# says: centered along the wrong axis
# %% shape
def shape(means):
    K = len(means)
    m = means - means.mean(dim=1, keepdim=True)
    length = m.norm(dim=1)
    u = m / length[:, None]
    cosines = (u @ u.T)[~torch.eye(K, dtype=torch.bool)]
    angles = (cosines + 1 / (K - 1)).abs().mean()
    return torch.stack([length.std(correction=0) / length.mean(), angles])
