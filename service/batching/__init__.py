"""Rows of many callers -> batches of one worker. Standard library only; generic over rows and results.

`backlog` decides which rows run next, `jobs` holds who waits for them, `batcher` has the workers, `pace` learns how
long runs take. None of them knows texts, tokens, models or HTTP.
"""
