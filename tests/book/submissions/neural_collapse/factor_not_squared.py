# loses: factor-value
# says: weight decay stands under a root in the margin
# %% factor
def decay_factor(n, classes, weight_decay, feature_decay, smoothing):
    price = math.sqrt(weight_decay * feature_decay * n)
    return 1 + smoothing / (classes * price)
