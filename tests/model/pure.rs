//! The pure rooms that decide elections: the very files of the product, by themselves.

#[path = "../../src/api"]
pub mod api {
    pub mod names;
}

#[path = "../../src/flink"]
pub mod flink {
    pub mod ha_data;
    pub mod job_id;
    pub mod lock;
}

#[path = "../../src/gateway"]
pub mod gateway {
    pub mod proxy {
        pub mod asker;
        pub mod request;
        pub mod translate;
    }
}

#[path = "../../src/lease/mod.rs"]
pub mod lease;
