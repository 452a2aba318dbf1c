"""What an accelerator shows in ten minutes: ``python -m benchmarks.accelerator``.

`frame` runs the stages of `stages`, each in a process of its own (`worker`), and
`record` writes what they measure. The stages know nothing of each other.
"""
