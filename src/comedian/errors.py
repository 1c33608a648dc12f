"""The one exception for input that a person can mend."""


class InputError(ValueError):
    """Bad input: one line that names the file or argument, what was found and how to mend it.

    The command line prints the line alone and exits with code 2.
    """
