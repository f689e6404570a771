# loses: slope-value
# says: is None: return the value, do not print it
# %% slope
def temperature_slope(h, temperature):
    u = normalize(h, dim=1)
    cosine = u @ u.T
    p = (cosine / temperature).fill_diagonal_(-torch.inf).softmax(dim=1)
    own = cosine[torch.arange(len(u)), torch.arange(len(u)).roll(len(u) // 2)]
    print((own - (p * cosine).sum(dim=1)).mean() / temperature**2)
