"""The models: from Docs to one row of tag scores for each token."""
