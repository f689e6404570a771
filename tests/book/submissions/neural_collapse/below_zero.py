# loses: margin-elsewhere
# says: the margin is negative or nan where the model knows nothing
# %% margin
def margin(n, classes, weight_decay, feature_decay, smoothing):
    wrong = math.sqrt(weight_decay * feature_decay * n) + smoothing / classes
    rest = 1 / wrong - (classes - 1)
    return math.log(rest)
