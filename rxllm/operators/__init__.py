"""Operators: functions from Observable to Observable. `rxllm` exports each of them."""
