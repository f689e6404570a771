# loses: force-value force-elsewhere
# says: name 'force' is not defined
# remark: cell 'force' was stopped after
# %% force
while True:
    pass
