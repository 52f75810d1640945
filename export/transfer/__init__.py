"""What a student learns from: texts, copies of them, and what its teacher says of each."""
