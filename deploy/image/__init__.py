"""What `deploy/verify-image` is made of: the image built, run, looked at. The standard library alone."""
