# loses: repaired-edges
# says: examples with a confidence of exactly one are in no bin
# %% repaired
def repaired(logits, target, bins=15):
    confidence, answer = logits.double().softmax(dim=1).max(dim=1)
    right = (answer == target).double()
    parts = torch.zeros(2, dtype=torch.float64)
    for m in range(bins):
        inside = (confidence >= m / bins) & (confidence < (m + 1) / bins)
        if inside.any():
            gap = (confidence[inside] - right[inside]).mean() * inside.double().mean()
            parts += torch.stack([gap, -gap]).clamp(min=0)
    return parts
