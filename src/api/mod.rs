//! The words users write and read in YAML: the custom resource, and the names of everything we create.

pub mod names;
