"""The names of a bundle's graphs. Their weights lie beside each as NAME.data."""

from pathlib import PurePath

UNET, TOWERS = "unet.onnx", ("text_encoder.onnx", "text_encoder_2.onnx")
DECODER, ENCODER = "vae_decoder.onnx", "vae_encoder.onnx"


def plain_name(name: str) -> str:
    """Return what the twin without side paths is called of a graph with a bank."""
    return f"{PurePath(name).stem}_plain.onnx"
