//! The chart as Helm renders it, over sets of values, and the scripts for Argo CD in the interpreter that Argo CD uses.
//!
//! Usage: `make test-chart`. HELM, LUA and PROMTOOL are the programs (`rig/tools clients`, `rig/argo-cd-lua`,
//! `rig/prometheus`).
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod alerts;
mod argo_cd;
mod crd_upgrade;
mod helm;
mod manifest;
mod names;
mod values;

// The states of a resource that the scripts have to read, with what kstatus makes of them.
#[path = "../pure/conditions.rs"]
mod conditions;
#[path = "../pure/kstatus.rs"]
mod kstatus;
