"""From bytes to whole requests and back, safe on a hostile network with no proxy in front.

It knows HTTP, and calls and replies. It knows nothing of models.
"""
