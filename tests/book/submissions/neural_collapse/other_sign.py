# loses: compare-evidence
# says: the sign is wrong: further collapsed means a smaller variability
# %% experiment
def collapse(ensemble, dataset):
    h = features(ensemble, dataset)
    found = [nc.within_class_variability(x, dataset.labels, 10) for x in h]
    return torch.stack(found).log10()


def compare(first, second):
    a, b = train(first), train(second)
    further = claims.difference(collapse(a, few), collapse(b, few))
    better = claims.difference(training.accuracy(a, split.test), training.accuracy(b, split.test))
    return further, better
