"""The long steady run: `python -m tests.soak` keeps one worker busy and watches what it holds on to.

`load` is what runs, `gauges` what is measured, `judging` what is made of it.
"""
