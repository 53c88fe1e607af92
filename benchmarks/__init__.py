"""Speed of the operations against their references, each row checked for equality in the same test.

    pytest benchmarks --benchmark-json=run.json -m "slow or not slow"
    python -m benchmarks.report run.json

`slow` are the rows of torch.compile, which compiles for longer than it runs, and the largest images. With
`--benchmark-disable` every row runs once, untimed.
"""
