"""One file a command: options and wiring, nothing else. What they call works from Python without click."""
