"""Files in, files out, fast: `reading` makes records, `scoring` answers them, `writing` makes lines of answers.

None of it knows HTTP. `scoring` takes any iterator of records, so other kinds of input are one more reader.
"""
