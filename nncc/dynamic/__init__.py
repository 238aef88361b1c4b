"""Libraries that take every size of a range: open dimensions, their buckets, and one general form for all others.

The general form is the least general generalization (Plotkin, "A Note on Inductive Generalization", 1970) of what the
static pipeline makes at some sample sizes: the same calls of the same kernels, in which the numbers that differ are
expressions of the open dimensions. `shapes` chooses the sizes, `fit` finds the expressions, `generalize` puts them into
the kernels, `general` into calls and buffers, `flatten_general` makes a program of these for the largest sizes,
`buckets` adds the static pipelines.
"""
