"""What may be told of a request, and where: metrics, logs and traces. Never its text, headers or key."""
