"""The one exception for input that a person can mend."""


class InputError(ValueError):
    """Bad input: one line that names the file or argument, what was found and how to mend it.

    The command line prints the line alone and exits with code 2. What is quoted from a file can neither break the line nor
    give orders to the terminal: line ends become spaces, other characters that cannot be printed their escapes.
    """

    def __init__(self, message: str):
        line = " ".join(part.strip() for part in message.splitlines())
        super().__init__("".join(char if char.isprintable() else repr(char)[1:-1] for char in line))
