"""From sampled frames to the LLM's visual tokens, computing only what changed."""
