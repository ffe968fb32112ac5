//! Defines the data that gateways write and the operator reads: jobs, HA data, the application, the election, refusals,
//! candidates that are not ready, changed Secrets, renewed certificates, the last changes of leader, checkpoints and
//! savepoints; and what gateways answer people. Pure.

pub mod application;
pub mod asked;
pub mod bounds;
pub mod certificates;
pub mod checkpoints;
pub mod copy;
pub mod election;
pub mod failovers;
pub mod jobs;
pub mod place;
pub mod quarantine;
pub mod recorded_state;
pub mod refusal;
pub mod savepoints;
pub mod secrets;
pub mod unready;
