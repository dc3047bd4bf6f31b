"""The language server: completions in an editor, with the project indexed and packed on the user's machine.

`documents` holds what the editor shows, `project` the index of a folder, `remote` asks the Infill server, `completer`
makes a completion of the three, `server` speaks the Language Server Protocol through pygls.
"""
