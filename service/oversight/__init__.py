"""A student and its teacher as one unit: when the teacher is asked, what that may cost, and how they are held together.

It knows predictors and their answers. It knows nothing of HTTP, paths or the shape of an answer.
"""
