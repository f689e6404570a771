# loses: repaired-value repaired-elsewhere repaired-edges
# says: background counts as a class of its own
# %% repaired
def repaired(h, labels, temperature):
    u = normalize(h, dim=1)
    itself = torch.eye(len(u), dtype=torch.bool)
    log_share = (u @ u.T / temperature).masked_fill(itself, -torch.inf).log_softmax(dim=1)
    positive = (labels[:, None] == labels) & ~itself
    number = positive.sum(dim=1)
    losses = -log_share.where(positive, 0).sum(dim=1) / number.clamp(min=1)
    return losses.sum() / (number > 0).sum().clamp(min=1)
