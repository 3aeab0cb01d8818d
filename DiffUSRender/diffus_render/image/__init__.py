"""From complex echoes to the picture: envelope, gain, compression, scan conversion, and the paper's artefacts."""
