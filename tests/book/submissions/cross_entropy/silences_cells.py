# loses: *
# says:
# remark: the guard before 'tempered-value' did not run
# %% tempered
get_ipython().input_transformers_post.append(lambda lines: [])
