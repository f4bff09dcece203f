"""Roll-outs, done: `controller` looks and writes, `webhooks` asks those who have a say, `posting` sends what is
told to anybody. What is decided is `core.rollout`'s.
"""
