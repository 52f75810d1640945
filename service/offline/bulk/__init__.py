"""Big files into a folder of parts: `survey` cuts the input into spans, `labour` scores one span into one part, and an
engine (`crew`: processes of this machine; `cluster`: Ray) has them scored in any order, each as often as it likes.

What makes every row come out once: a span always becomes the part of its number, a part gets its name in one rename,
and `ledger` counts a part only with its receipt. None of it knows HTTP.
"""
