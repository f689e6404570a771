# loses: *
# says:
# remark: the guard before 'gentle-value' did not run
# %% gentle
get_ipython().input_transformers_post.append(lambda lines: [])
