//! Remotes and options as written by people: parsed, checked, and refused with a sentence.
