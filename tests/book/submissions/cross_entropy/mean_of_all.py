# loses: repaired-value repaired-edges
# says: the mean is over all examples, ignored ones too
# %% repaired
def repaired(logits, target, ignore_index=-100):
    valid = target != ignore_index
    log_p = logits.log_softmax(dim=1)
    picked = log_p.gather(1, target.where(valid, torch.zeros_like(target))[:, None])[:, 0]
    return -(picked * valid).mean()
