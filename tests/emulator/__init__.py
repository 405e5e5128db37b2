"""An emulator of AWS, to which the real `sam deploy` deploys the package as it is, with IAM enforced.

It is ministack of PyPI, in an environment of its own (`.venv-emulator`), started by `python -m tests.emulator`. Each
module adds to one of its services what a SAM application needs of AWS beyond it, and says why.
"""
