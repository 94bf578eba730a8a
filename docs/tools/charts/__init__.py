"""The figures of the documents, by what they are of. A figure is a function that gives a chart and its message."""
