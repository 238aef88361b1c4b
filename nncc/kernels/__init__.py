"""A kernel's way to its loops: templates and what they may decide, what has none, and what their files share."""
