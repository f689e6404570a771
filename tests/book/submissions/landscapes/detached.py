# loses: split-value split-elsewhere split-large
# says: the graph from the outputs back to the weights is cut
# %% split
def split_product(outputs, loss, w, v):
    slope = torch.func.grad(loss)
    z, moved = torch.func.jvp(outputs, (w,), (v,))
    bent = torch.func.jvp(slope, (z,), (moved,))[1]
    pull = torch.func.vjp(outputs, w)[1]
    held = slope(z)
    weighed = torch.func.grad(lambda u: (held * outputs(u).detach()).sum())
    return pull(bent)[0], torch.func.jvp(weighed, (w,), (v,))[1]
