# loses: repaired-wide
# says: has no inverse
# %% repaired
def repaired(features, labels, classes):
    means = torch.stack([features[labels == k].mean(dim=0) for k in range(classes)])
    offset = means - means.mean(dim=0)
    inverse = (offset.T @ offset / classes).inverse()
    found = []
    for k in range(classes):
        scatter = features[labels == k].T.cov(correction=0)
        found.append((scatter @ inverse).trace() / classes)
    return torch.stack(found)
