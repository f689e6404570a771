# loses: rescaled-value
# says: the factors run along the wrong axis
# %% rescaled
def rescaled(w, c):
    W, b, a = w.split([24, 8, 8])
    return torch.cat([(W.view(3, 8) * c).flatten(), b * c, a / c])
