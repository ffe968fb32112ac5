//! Every decision about a cluster: is the resource sound, which objects make it up, what is its state. [`plan`] puts
//! them together to what one reconciliation does.
//!
//! Invariant: no client, no runtime, no clock. What goes in has been observed by [`crate::operator`]; what comes out is
//! applied by it.

pub mod account;
pub mod application;
pub mod build;
pub mod cause;
pub mod causes;
pub mod crash;
pub mod deletion;
pub mod deployment;
pub mod drop_job;
pub mod events;
pub mod failovers;
pub mod gateway_image;
pub mod ha_status;
pub mod kubernetes_version;
pub mod ledger_data;
pub mod merge;
pub mod observed;
pub mod operators;
pub mod pause;
pub mod peer_key;
pub mod plan;
pub mod presence;
pub mod quantity;
pub mod rejection;
pub mod rollout;
pub mod secret_change;
pub mod stale_tokens;
pub mod status;
pub mod stored;
pub mod switchover;
#[cfg(test)]
pub mod tests;
pub mod tls;
pub mod turn;
pub mod urgency;
pub mod uri_credentials;
pub mod validate;
pub mod waits;
pub mod warnings;

pub use validate::Cluster;
