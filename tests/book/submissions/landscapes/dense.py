# loses: split-elsewhere split-large
# says: a whole P x P matrix was written down
# %% split
def split_product(outputs, loss, w, v):
    J = torch.func.jacrev(outputs)(w).flatten(0, 1)
    z = outputs(w)
    curvature = torch.func.hessian(loss)(z).reshape(z.numel(), z.numel())
    gauss_newton = J.T @ (curvature @ (J @ v))
    H = torch.func.hessian(lambda u: loss(outputs(u)))(w)
    return gauss_newton, H @ v - gauss_newton
