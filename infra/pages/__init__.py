"""The live page: a river to look at, ask, teach and steer, in a browser."""
