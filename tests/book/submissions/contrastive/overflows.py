# loses: weighted-extremes
# says: which is not finite: some exponential or logarithm overflows
# %% weighted
def weighted_info_nce(anchors, keys, weights, temperature):
    scores = normalize(anchors, dim=1) @ normalize(keys.detach(), dim=1).T / temperature
    itself = torch.eye(len(scores), dtype=torch.bool)
    pushes = scores.exp() * weights.masked_fill(itself, 1)
    return -(scores.exp().diagonal() / pushes.sum(dim=1)).log().mean()
