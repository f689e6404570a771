# loses: evidence-agrees
# says: the sign is wrong: small step minus large step was asked for
# %% experiment
ends = {eta: train(0.1, time=20, start=train(eta, time=40)) for eta in (0.1, 0.4)}
flatter = claims.difference(sharpness(ends[0.1]), sharpness(ends[0.4]))
losses = {eta: torch.func.vmap(test_loss)(points) for eta, points in ends.items()}
better = claims.difference(losses[0.4], losses[0.1])
