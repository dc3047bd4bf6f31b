"""The artifacts of the stages, a module for each: its files' names and schemas, how they are written and read.

No other module spells these names. What all artifacts have in common (`manifest.json`, `report.json`) is in
`infill.manifest`; the files of a tokenizer and a model are those of Hugging Face (`infill.prompt`, `infill.model`).
"""
