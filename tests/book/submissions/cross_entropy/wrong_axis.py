# loses: tempered-value tempered-elsewhere
# says: the sum of exponentials runs over the examples, not over the classes
# %% tempered
def tempered_cross_entropy(logits, target, offset, temperature):
    scores = logits / temperature + offset
    own = scores[torch.arange(len(target)), target]
    return (scores.logsumexp(dim=0)[target] - own).mean()
