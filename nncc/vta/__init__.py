"""The accelerator: its description, what encodes and simulates programs for it, and what makes them."""
