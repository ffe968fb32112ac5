//! Carries out the election: the driver of the state machine, the grant with its stamps and the take-over of another
//! version's data, promises between gateways, REST discovery.

pub mod driver;
pub mod endpoint;
pub mod grant;
pub mod peer_keys;
pub mod peer_messages;
pub mod peers;
pub mod stamper;
pub mod take_over;
