"""From a network or a graph to a bundle on disk, and from one version of it to the next."""
