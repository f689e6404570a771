# loses: tempered-value tempered-elsewhere
# says: the temperature multiplies the logits instead of dividing them
# %% tempered
def tempered_cross_entropy(logits, target, offset, temperature):
    return torch.nn.functional.cross_entropy(logits * temperature + offset, target)
