# loses: experiment-evidence
# says: on the held-out digits on which the repairs were fitted
# %% experiment
def judged(logits, target):
    return torch.stack(
        [
            (logits.argmax(dim=1) == target).double().mean(),
            -torch.nn.functional.cross_entropy(logits, target),
            -losses.expected_calibration_error(logits, target),
        ]
    )


evidence = {}
for name, data in WORLDS.items():
    alone, both = [], []
    for z, y, _, _ in zip(*data, strict=True):
        temperature, offset = fit_offsets(z, y)
        alone.append(judged(z / losses.fit_temperature(z, y), y))
        both.append(judged(z / temperature + offset, y))
    pairs = zip(torch.stack(both).T, torch.stack(alone).T, strict=True)
    found = [claims.difference(*pair) for pair in pairs]
    evidence[name] = dict(zip(("accuracy", "surprise", "ece"), found, strict=True))
