# loses: split-elsewhere
# says: it looks like what rounding leaves of a difference
# %% split
def split_product(outputs, loss, w, v):
    z, moved = torch.func.jvp(outputs, (w,), (v,))
    bent = torch.func.jvp(torch.func.grad(loss), (z,), (moved,))[1]
    gauss_newton = torch.func.vjp(outputs, w)[1](bent)[0]
    whole = torch.func.jvp(torch.func.grad(lambda u: loss(outputs(u))), (w,), (v,))[1]
    return gauss_newton, whole - gauss_newton
