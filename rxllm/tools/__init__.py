"""Tools: functions that a model or a pipeline may call."""
