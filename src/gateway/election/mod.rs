//! The effects of the election: the driver of the state machine, stamps, promises between gateways, REST discovery.

pub mod driver;
pub mod endpoint;
pub mod peers;
pub mod stamper;
