"""The paper's experiments as commands: a question, cells to compare, and a conclusion that follows from the intervals.

An experiment is one value of `experiment.Experiment`; running it, its statistics, its report and its figure are shared.
"""
