"""Learning from documents: an adapter that is pre-trained further on public passages as they come.

Read in this order: `texts`, `reservoir`, `general`, `student`,
`curriculum`, `study_gate`, `notes`, `study`.
Nothing in here is private: what is studied can be told by the weights.
"""
