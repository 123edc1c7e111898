"""What the verbs of the command line do: paths and words in, text and JSON document out. Nothing here prints."""
