//! The API server as the JVM sees it: what a request means, what becomes of it, and what is done about it.

pub mod asker;
pub mod drift_repair;
pub mod fence;
pub mod jvm_lock;
pub mod request;
pub mod server;
pub mod strangers;
pub mod translate;
pub mod upstream;
