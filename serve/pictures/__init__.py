"""Pictures as files: how they were made written into them, marked, signed, and read back."""

from serve.pictures.files import parameters_of, picture_file
from serve.pictures.finishing import Finishing, finished
from serve.pictures.parameters import Parameters, parameters
from serve.pictures.provenance import Signing

__all__ = ["Finishing", "Parameters", "Signing", "finished", "parameters", "parameters_of", "picture_file"]
