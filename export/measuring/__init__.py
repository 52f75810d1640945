"""How good a bundle is, how steady, and how sure it must be for its answer to be its teacher's."""
