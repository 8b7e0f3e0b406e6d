"""Privacy of the learner: noise, what it costs, who may take part, and the ledger.

Read in this order: `gaussian` (epsilon of a Gaussian mechanism), `toeplitz` (correlated noise and
its sensitivity), `plan` (what a learner commits itself to), `noise` (the stream of noise),
`participation`, `ledger`, `ledger_store`.
"""
