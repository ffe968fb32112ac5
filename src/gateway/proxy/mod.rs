//! Acts as the API server of the JVM: the meaning of a request, the decision about it, and its effects.

pub mod asker;
pub mod drift_repair;
pub mod fence;
pub mod jvm_lock;
pub mod request;
pub mod server;
pub mod strangers;
pub mod translate;
pub mod upstream;
