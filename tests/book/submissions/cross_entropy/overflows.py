# loses: tempered-extremes
# says: some exponential or logarithm overflows
# %% tempered
def tempered_cross_entropy(logits, target, offset, temperature):
    scores = (logits / temperature + offset).exp()
    p = scores / scores.sum(dim=1, keepdim=True)
    return -p[torch.arange(len(target)), target].log().mean()
