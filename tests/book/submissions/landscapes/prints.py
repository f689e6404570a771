# loses: moments-value moments-unbiased
# says: are None: return them, do not print them
# %% moments
def moments(product, probes):
    products = torch.stack([product(v) for v in probes])
    q = (probes * products).sum(dim=1)
    print(q.mean(), products.square().sum(dim=1).mean(), q.mean() ** 2 - q.var() / len(q))
