# loses: slope-value
# says: name 'temperature_slope' is not defined
# remark: cell 'slope' was stopped after
# %% slope
while True:
    pass
