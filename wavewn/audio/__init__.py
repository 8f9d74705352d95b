"""Audio files, mel spectrograms and companding: what lies between a recording and a network."""
