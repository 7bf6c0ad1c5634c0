"""Types as shapes of answers: their JSON schemas, their decoding, and growing JSON."""
