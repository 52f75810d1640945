"""What a task makes of labels: targets to learn, metrics to be held against, and what is learnt from them."""
