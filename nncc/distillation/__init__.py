"""Distillation: a student network is trained to answer as its teacher does, on data without labels.

torch, the extra ``nncc[distill]``, is imported by all files here but `api`, `settings` and `weights`.
"""
