"""The example at the end of each command's `--help`."""


def example_epilog(example: str) -> str:
    """Return the end of a help text, from one or more command lines, one per line."""
    return "example:\n" + "\n".join(f"  {line}" for line in example.splitlines())
