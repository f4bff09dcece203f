"""Roll-outs, done: `controller` looks and writes, `webhooks` asks those who have a say, `telling` tells the others.

`posting` is how anything is sent. What is decided is `core.rollout`'s.
"""
