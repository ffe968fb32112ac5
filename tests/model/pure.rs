//! The pure rooms that decide elections: the very files of the product, by themselves.

#[path = "../../src/api"]
pub mod api {
    pub mod names;
}

#[path = "../../src/flink"]
pub mod flink {
    pub mod ha_data;
    pub mod job_id;
    pub mod job_state;
    pub mod lock;
    pub mod result;
    pub mod version;
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

#[path = "../../src/ha_data"]
pub mod ha_data {
    pub mod handover;
}

#[path = "../../src/ledger"]
pub mod ledger {
    pub mod application;
    pub mod bounds;
    pub mod election;
    pub mod jobs;
    pub mod recorded_state;
    pub mod refusal;

    pub mod place {
        /// Where HA data is makes no difference here.
        #[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        pub struct HaDataPlace {}
    }
}

#[path = "../../src/quorum/mod.rs"]
pub mod quorum;
