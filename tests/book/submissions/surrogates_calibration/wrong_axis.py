# loses: repaired-value repaired-edges repaired-elsewhere
# says: the softmax runs over the examples, not over the classes
# %% repaired
def repaired(logits, target, bins=15):
    confidence, answer = logits.double().softmax(dim=0).max(dim=1)
    right = (answer == target).double()
    parts = torch.zeros(2, dtype=torch.float64)
    for m in range(bins):
        inside = (confidence > m / bins) & (confidence <= (m + 1) / bins)
        if inside.any():
            gap = (confidence[inside] - right[inside]).mean() * inside.double().mean()
            parts += torch.stack([gap, -gap]).clamp(min=0)
    return parts
