# loses: moments-unbiased
# says: a probe was multiplied by H more than once
# %% moments
def moments(product, probes):
    q = torch.stack([v @ product(v) for v in probes])
    squares = torch.stack([v @ product(product(v)) for v in probes])
    return torch.stack([q.mean(), squares.mean(), q.mean() ** 2 - q.var() / len(q)])
