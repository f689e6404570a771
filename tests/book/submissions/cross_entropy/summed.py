# loses: tempered-value tempered-elsewhere tempered-extremes
# says: it is summed over the examples, not averaged
# %% tempered
def tempered_cross_entropy(logits, target, offset, temperature):
    scores = logits / temperature + offset
    highest = scores.max(dim=1, keepdim=True).values
    log_sum = highest[:, 0] + (scores - highest).exp().sum(dim=1).log()
    return (log_sum - scores[torch.arange(len(target)), target]).sum()
