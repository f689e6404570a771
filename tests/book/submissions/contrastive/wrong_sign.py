# loses: weighted-value weighted-elsewhere weighted-gradient weighted-extremes
# says: the sign is wrong: a loss of this kind is not negative
# %% weighted
def weighted_info_nce(anchors, keys, weights, temperature):
    scores = normalize(anchors, dim=1) @ normalize(keys.detach(), dim=1).T / temperature
    itself = torch.eye(len(scores), dtype=torch.bool)
    candidates = scores + weights.masked_fill(itself, 1).log()
    return (scores.diagonal() - candidates.logsumexp(dim=1)).mean()
