"""What was learned, where people look for it: MLflow's runs and registry, and TensorBoard.

Read in this order: `settings`, `points` (what of the river is worth a point of a curve),
`mlflow_store`, `registry`, `tensorboard_files`. `agents/track.py` feeds them. Nothing in here is
read by learning or serving: what is written can be thrown away, and is made anew from the topics.
"""
