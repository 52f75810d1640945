"""Students' networks and Hugging Face's: loaded, looked into, cut smaller, counted, and put on a device."""
