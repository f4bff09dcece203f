"""The pure core: synchronous, no I/O, no clock, no randomness, no logging. Same inputs in any order give the same bytes."""
