"""Targets as data: what a machine is that code is compiled for, and how people name one. All is imported from here."""

from nncc.target.descriptions import available
from nncc.target.facts import Hardware, Link, Target
from nncc.target.resolution import resolve

__all__ = ["Hardware", "Link", "Target", "available", "resolve"]
