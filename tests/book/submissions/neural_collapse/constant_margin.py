# loses: margin-trained margin-elsewhere
# says: the margin of the example is built in
# %% margin
def margin(n, classes, weight_decay, feature_decay, smoothing):
    return math.log(1 / (math.sqrt(4e-5) + 0.025) - 3)
