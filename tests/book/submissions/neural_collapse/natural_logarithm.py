# loses: collapse-value compare-evidence
# says: this is the natural logarithm
# %% experiment
def collapse(ensemble, dataset):
    h = features(ensemble, dataset)
    found = [nc.within_class_variability(x, dataset.labels, 10) for x in h]
    return torch.stack(found).log()


def compare(first, second):
    a, b = train(first), train(second)
    further = claims.difference(collapse(b, few), collapse(a, few))
    better = claims.difference(training.accuracy(a, split.test), training.accuracy(b, split.test))
    return further, better
