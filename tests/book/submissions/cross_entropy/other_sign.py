# loses: experiment-evidence
# says: the difference has the wrong sign
# %% experiment
def bounded(logits, target):
    p = logits.softmax(dim=1).gather(1, target[:, None])[:, 0]
    return -(0.7 * p + 0.3 / logits.shape[1]).log().mean()


accuracies = {"bounded": train(bounded), "plain": train(torch.nn.functional.cross_entropy)}
evidence = claims.difference(accuracies["plain"], accuracies["bounded"])
