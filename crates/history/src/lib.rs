//! Cuts and restores.
