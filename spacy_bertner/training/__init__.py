"""What surrounds `spacy train`: data checks, loggers, resuming, calibration."""
