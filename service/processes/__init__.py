"""Several processes behind one port: started, watched, replaced, and told of what one of them was asked."""
