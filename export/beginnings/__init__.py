"""What a student is before it learns: its words, and the weights that it takes over."""
