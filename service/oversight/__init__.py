"""A student and its teacher as one unit: which teacher is whose, when it is asked, and how they are held together.

It knows predictors and their answers. It knows nothing of HTTP, paths or the shape of an answer.
"""
