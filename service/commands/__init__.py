"""The commands of `python -m service`, one module each; `cli` puts them together, `terminal` is how they speak."""
