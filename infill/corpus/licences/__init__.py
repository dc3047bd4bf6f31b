"""Licences that a repository's licence files, build files and headers state, as SPDX expressions.

A statement that is not recognised makes everything that it covers not permitted.
"""

from infill.corpus.licences.builds import is_build_file, of_metadata
from infill.corpus.licences.coverage import NOTHING_STATED, Coverage, of_files
from infill.corpus.licences.headers import of_source
from infill.corpus.licences.names import is_licence
from infill.corpus.licences.recognise import Statement, of_text
from infill.corpus.licences.spdx import UNKNOWN, normalise, permitted

__all__ = [
    "NOTHING_STATED",
    "UNKNOWN",
    "Coverage",
    "Statement",
    "is_build_file",
    "is_licence",
    "normalise",
    "of_files",
    "of_metadata",
    "of_source",
    "of_text",
    "permitted",
]
