//! Defines the formats that belong to Flink: its configuration, its lock record, its HA data, its result stores. It
//! also has the part of ZooKeeper's protocol that the gateway needs. No decision of this product is made here.

pub mod checkpoint;
pub mod config;
pub mod digest_md5;
pub mod entry_point;
pub mod ha_data;
pub mod ha_file;
pub mod job_id;
pub mod job_state;
pub mod key_store;
pub mod lock;
pub mod mounted_secrets;
pub mod pointer;
pub mod result;
pub mod sensitive;
pub mod serialized;
pub mod tls;
pub mod version;
pub mod znode_requests;
pub mod znodes;
pub mod zookeeper_frames;
pub mod zookeeper_servers;
