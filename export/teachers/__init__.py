"""Who is asked for signals: a Hugging Face model, or a bundle as it is served."""
