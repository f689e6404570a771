# loses: force-elsewhere
# says: the number of classes seems to be three, whatever the logits
# %% force
def force(logits, target, epsilon):
    p = logits.softmax(dim=1)
    own = p.gather(1, target[:, None])
    one_hot = torch.nn.functional.one_hot(target, logits.shape[1])
    return (1 - epsilon) * own / ((1 - epsilon) * own + epsilon / 3) * (p - one_hot)
