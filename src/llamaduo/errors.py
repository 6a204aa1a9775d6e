"""What a user can mend."""


class InputError(Exception):
    """Inputs of the run cannot be used; the message has a sentence for each."""
