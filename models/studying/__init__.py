"""Learning from documents: an adapter that is pre-trained further on public passages as they come.

Read in this order: `texts`, `reservoir`, `student`, `perplexity`, `study_gate`, `study_file`.
Nothing in here is private: what is studied can be told by the weights.
"""
