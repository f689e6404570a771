# loses: moments-value moments-unbiased
# says: what is taken away is too small on average
# %% moments
def moments(product, probes):
    products = torch.stack([product(v) for v in probes])
    q = (probes * products).sum(dim=1)
    squared = q.mean() ** 2 - (q.square().mean() - q.mean() ** 2) / len(q)
    return torch.stack([q.mean(), products.square().sum(dim=1).mean(), squared])
