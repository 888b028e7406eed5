"""Models as others take them: a folder for the Hub, the published format, the model card."""
