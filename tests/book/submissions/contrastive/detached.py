# loses: weighted-value weighted-gradient weighted-extremes
# says: carries no gradient
# %% weighted
def weighted_info_nce(anchors, keys, weights, temperature):
    with torch.no_grad():
        scores = normalize(anchors, dim=1) @ normalize(keys, dim=1).T / temperature
        itself = torch.eye(len(scores), dtype=torch.bool)
        candidates = scores + weights.masked_fill(itself, 1).log()
        return (candidates.logsumexp(dim=1) - scores.diagonal()).mean()
