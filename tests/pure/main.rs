//! Tests that need nothing: no network, no JVM, no cluster.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod architecture;
mod collection;
mod commands;
mod conditions;
mod documents;
mod fuzzers;
mod generated;
mod kstatus;
mod metrics;
mod operations;
mod quarantine;
mod rbac;
mod templates;
