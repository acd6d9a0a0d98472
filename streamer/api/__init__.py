"""The HTTP side: stateless, knows only Redis."""
