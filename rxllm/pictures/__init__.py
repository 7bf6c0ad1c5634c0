"""Pictures of what happened, drawn from events: timelines of runs."""
