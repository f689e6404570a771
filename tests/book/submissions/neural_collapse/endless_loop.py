# loses: factor-value
# says: name 'decay_factor' is not defined
# remark: cell 'factor' was stopped after
# %% factor
while True:
    pass
