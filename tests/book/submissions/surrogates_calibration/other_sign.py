# loses: experiment-evidence
# says: has the wrong sign: positive was to say
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
    for z, y, z_test, y_test in zip(*data, strict=True):
        temperature, offset = fit_offsets(z, y)
        alone.append(judged(z_test / losses.fit_temperature(z, y), y_test))
        both.append(judged(z_test / temperature + offset, y_test))
    pairs = zip(torch.stack(alone).T, torch.stack(both).T, strict=True)
    found = [claims.difference(*pair) for pair in pairs]
    evidence[name] = dict(zip(("accuracy", "surprise", "ece"), found, strict=True))
