# loses: tempered-value tempered-extremes
# says: carries no gradient
# %% tempered
def tempered_cross_entropy(logits, target, offset, temperature):
    scores = logits.detach() / temperature + offset
    highest = scores.max(dim=1, keepdim=True).values
    log_sum = highest[:, 0] + (scores - highest).exp().sum(dim=1).log()
    return (log_sum - scores[torch.arange(len(target)), target]).mean()
