"""Finding passages: one Protocol for dense indexes, a BM25 index, and their fusion.

Read `passages` (what is stored), `index` (the Protocol), then `retriever` (what a caller uses).
"""
