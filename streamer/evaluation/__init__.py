"""What leaving tokens out costs: pipelines run over a dataset, scored against what is true."""
