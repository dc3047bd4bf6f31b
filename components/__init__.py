"""One KFP component per stage: typed artifacts in and out, a body that calls the library."""
