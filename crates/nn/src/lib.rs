//! Modules, optimizers, data, training, generation and checkpoints.
