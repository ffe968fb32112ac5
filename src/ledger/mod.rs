//! Defines the data that gateways write and the operator reads: jobs, HA data, the application, the election, refusals.
//! Pure.

pub mod application;
pub mod election;
pub mod jobs;
pub mod place;
pub mod refusal;
