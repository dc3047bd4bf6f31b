"""From folders of code to a corpus: documents that may be trained on, and why the others may not."""
