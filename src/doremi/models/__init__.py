"""A causal language model to the loss of each token: loading, size, output heads, what can be proven of its losses."""
