"""Jobs: many prompts, answered once each, with a journal that survives a crash."""
