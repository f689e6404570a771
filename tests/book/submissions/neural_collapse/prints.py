# loses: shape-value shape-elsewhere
# says: are None: return them, do not print them
# %% shape
def shape(means):
    K = len(means)
    m = means - means.mean(dim=0)
    length = m.norm(dim=1)
    u = m / length[:, None]
    cosines = (u @ u.T)[~torch.eye(K, dtype=torch.bool)]
    angles = (cosines + 1 / (K - 1)).abs().mean()
    print(torch.stack([length.std(correction=0) / length.mean(), angles]))
