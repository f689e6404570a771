# loses: weighted-gradient
# says: a gradient flows into the keys
# %% weighted
def weighted_info_nce(anchors, keys, weights, temperature):
    scores = normalize(anchors, dim=1) @ normalize(keys, dim=1).T / temperature
    itself = torch.eye(len(scores), dtype=torch.bool)
    candidates = scores + weights.masked_fill(itself, 1).log()
    return (candidates.logsumexp(dim=1) - scores.diagonal()).mean()
