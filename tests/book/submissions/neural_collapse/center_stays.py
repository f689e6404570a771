# loses: repaired-value repaired-rare
# says: the means are centered by the mean of all examples
# %% repaired
def repaired(features, labels, classes):
    means = torch.stack([features[labels == k].mean(dim=0) for k in range(classes)])
    offset = means - features.mean(dim=0)
    inverse = torch.linalg.pinv(offset.T @ offset / classes, hermitian=True)
    found = []
    for k in range(classes):
        scatter = features[labels == k].T.cov(correction=0)
        found.append((scatter @ inverse).trace() / classes)
    return torch.stack(found)
