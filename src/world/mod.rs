//! The world outside: storage, and the Lease of an election.

pub mod lease;
pub mod storage;
