# loses: repaired-value repaired-elsewhere
# says: the average over the positives is inside the logarithm
# %% repaired
def repaired(h, labels, temperature):
    u = normalize(h, dim=1)
    itself = torch.eye(len(u), dtype=torch.bool)
    log_share = (u @ u.T / temperature).masked_fill(itself, -torch.inf).log_softmax(dim=1)
    positive = (labels[:, None] == labels) & (labels >= 0) & ~itself
    number = positive.sum(dim=1)
    log_sum = log_share.masked_fill(~positive, -1e30).logsumexp(dim=1)
    losses = (number.clamp(min=1).log() - log_sum).where(number > 0, 0)
    return losses.sum() / (number > 0).sum().clamp(min=1)
