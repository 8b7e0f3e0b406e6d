"""Learning from feedback: a LoRA adapter over a frozen base, one step for each cohort of users.

Read in this order: `examples`, `lora`, `user_gradients`, `losses`, `clipping`, `optimizers`,
`learner`. What makes a step private lies in `models.privacy`.
"""
