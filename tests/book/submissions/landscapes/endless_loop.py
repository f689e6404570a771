# loses: factors-value
# says: name 'factors' is not defined
# remark: cell 'factors' was stopped after
# %% factors
while True:
    pass
