"""The model the repository carries: clips with exact truth, training, scores, weights."""
