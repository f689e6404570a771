# loses: repaired-value repaired-edges repaired-elsewhere
# says: name 'repaired' is not defined
# remark: cell 'repaired' was stopped after
# %% repaired
while True:
    pass
