//! The product's pure rooms and its other parsers of bytes that others write, with the targets that fuzz them.

#![no_main]
#![allow(dead_code)] // the product uses more of its rooms than the targets do

#[path = "../../src/api/mod.rs"]
pub mod api;
#[path = "../../src/cluster/mod.rs"]
pub mod cluster;
#[path = "../../src/flink/mod.rs"]
pub mod flink;
#[path = "../../src/gateway"]
pub mod gateway {
    pub mod election {
        pub mod peer_messages;
    }
    pub mod proxy {
        pub mod asker;
        pub mod request;
        pub mod translate;
    }
}
#[path = "../../src/ha_data/mod.rs"]
pub mod ha_data;
#[path = "../../src/lease/mod.rs"]
pub mod lease;
#[path = "../../src/ledger/mod.rs"]
pub mod ledger;
#[path = "../../src/operator"]
pub mod operator {
    pub mod fingerprint;
    pub mod kinds;
    pub mod received;
}
#[path = "../../src/quorum/mod.rs"]
pub mod quorum;
#[path = "../../src/world"]
pub mod world {
    pub mod quorum {
        pub mod frames;
    }
}

mod execution;
mod input;
mod mutation;
mod targets;

libfuzzer_sys::fuzz_target!(init: execution::begin(), |bytes: &[u8]| execution::one(bytes));
libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    mutation::mutate(data, size, max_size, seed)
});
