"""What can go wrong with the encoder."""


class EncoderMissing(RuntimeError):
    """There is no usable sentence encoder. The text says what to install or set."""


class EncodeFailed(RuntimeError):
    """The model could not encode these texts. The text holds none of them."""
