"""One KFP component per stage, with typed artifacts as inputs and outputs and a body that calls the library."""
