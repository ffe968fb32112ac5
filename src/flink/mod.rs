//! The bytes that Flink defines, and nothing that we decide: its configuration, its lock record, its HA data, its
//! result stores. And what is needed of the protocol of the ZooKeeper servers that it goes to.

pub mod checkpoint;
pub mod config;
pub mod digest_md5;
pub mod entry_point;
pub mod ha_data;
pub mod ha_file;
pub mod job_id;
pub mod lock;
pub mod pointer;
pub mod result;
pub mod serialized;
pub mod znode_requests;
pub mod znodes;
pub mod zookeeper_frames;
