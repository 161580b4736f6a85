"""The page of a lake, for a browser, a phone and a printer: its figures, its charts, and its HTML."""
