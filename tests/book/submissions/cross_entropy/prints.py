# loses: force-value force-elsewhere
# says: is None: return the value, do not print it
# %% force
def force(logits, target, epsilon):
    p = logits.softmax(dim=1)
    own = p.gather(1, target[:, None])
    one_hot = torch.nn.functional.one_hot(target, logits.shape[1])
    mixed = (1 - epsilon) * own + epsilon / logits.shape[1]
    print((1 - epsilon) * own / mixed * (p - one_hot))
