"""Students beside their teachers in one run.

`sweep` measures the engines, `service.bench.http` the services, `quality` the answers. `report` holds what came out,
`sheets` shows it as tables, `plots` draws it, `page` makes one HTML file of both. `papers` repeats the set-ups of two
papers. Only the two commands print.
"""
