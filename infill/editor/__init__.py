"""The language server: completions in an editor, with the project indexed and packed on the user's machine.

`documents` holds the editor's texts, `project` the index of a folder, `remote` is the client of the Infill server,
`completer` makes completions from the three, `language_server` speaks the Language Server Protocol through pygls.
"""
