"""Pure logic: no engine, no queue, no network, no wall clock, no environment."""
