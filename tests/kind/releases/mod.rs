//! Releases of the chart as users make them with Helm, under running jobs.
//!
//! `make test-upgrade` runs these tests, and `make test-kind` does not: they replace the operator of all namespaces.

mod former;
mod step;
mod two;
