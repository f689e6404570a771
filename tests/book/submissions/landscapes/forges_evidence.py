# loses: evidence-form evidence-agrees
# says: is not what claims.difference gives
# remark: lossbook.lab.claims.Evidence
# %% experiment
class Everything:
    seeds, mean = 10, 1.0

    def __eq__(self, other):
        return True

    __hash__ = None


claims.Evidence = Everything
flatter, better = Everything(), Everything()
better.mean = 2.0
