//! Everything outside that is not the Kubernetes API: storage.

pub mod storage;
