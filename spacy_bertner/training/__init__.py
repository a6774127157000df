"""What surrounds `spacy train`: checks of the data, loggers, checkpoints, calibration."""
