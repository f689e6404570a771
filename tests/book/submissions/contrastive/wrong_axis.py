# loses: weighted-value weighted-elsewhere weighted-gradient weighted-extremes
# says: keys look for anchors: the sum runs over the wrong axis
# %% weighted
def weighted_info_nce(anchors, keys, weights, temperature):
    scores = normalize(anchors, dim=1) @ normalize(keys.detach(), dim=1).T / temperature
    itself = torch.eye(len(scores), dtype=torch.bool)
    candidates = scores + weights.masked_fill(itself, 1).log()
    return (candidates.logsumexp(dim=0) - scores.diagonal()).mean()
