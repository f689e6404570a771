# loses: offsets-value offsets-elsewhere experiment-evidence
# says: the temperature is inverted: logits are divided by it
# %% offsets
def fit_offsets(logits, target, penalty=0.01):
    z = logits.detach().double()
    beta = torch.ones((), dtype=torch.float64, requires_grad=True)
    b = torch.zeros(z.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [beta, b],
        max_iter=300,
        tolerance_grad=1e-9,
        tolerance_change=1e-13,
        line_search_fn="strong_wolfe",
    )

    def closure():
        optimizer.zero_grad()
        surprise = torch.nn.functional.cross_entropy(beta * z + b, target)
        loss = surprise + penalty / 2 * b.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return beta.detach(), b.detach()
