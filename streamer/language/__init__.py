"""From a token stream to words: the prompt's layout, a group's session, greedy decoding."""
