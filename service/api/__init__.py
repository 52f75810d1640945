"""From parsed requests to answers: who may ask, what every route shares, and what the document says of it."""
