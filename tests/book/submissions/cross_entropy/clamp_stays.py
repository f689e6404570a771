# loses: repaired-force
# says: the clamp is still there
# %% repaired
def repaired(logits, target, ignore_index=-100):
    valid = target != ignore_index
    log_p = logits.softmax(dim=1).clamp(min=1e-6).log()
    picked = log_p.gather(1, target.where(valid, torch.zeros_like(target))[:, None])[:, 0]
    return -(picked * valid).sum() / valid.sum().clamp(min=1)
