"""What networks from several papers share: layers, sequences of frames, padding."""
