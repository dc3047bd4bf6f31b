"""The language server: completions in an editor, with the project indexed on the user's machine or kept on the server.

`documents` holds the editor's texts, `project` a folder with its index, `mirror` the server's copy of a folder in place
of an index, `remote` is the client of the Infill server, `completer` makes completions from these, `language_server`
speaks the Language Server Protocol through pygls.
"""
