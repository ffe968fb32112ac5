//! What people run for minutes or hours, and CI a part of: one program, so that what they stand on is compiled and
//! linked once. `cargo test --features long-tests --test long -- NAME`
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/mod.rs"]
mod support;

mod adversity;
#[path = "../bench/api_load.rs"]
mod api_load;
#[path = "../bench/api_server_cost.rs"]
mod api_server_cost;
mod class_archive;
mod faults;
mod flink_upgrades;
#[path = "../bench/gateway_cost.rs"]
mod gateway_cost;
mod gc;
#[path = "../bench/operator.rs"]
mod operator;
#[path = "../bench/operator_load.rs"]
mod operator_load;
#[path = "../bench/plugin_cost.rs"]
mod plugin_cost;
mod security;
#[path = "../bench/sweep.rs"]
mod sweep;
mod zookeeper;

#[tokio::main]
async fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("adversity") => adversity::run().await,
        Some("api-load") => api_load::run().await,
        Some("class-archive") => class_archive::run().await,
        Some("faults") => faults::run().await,
        Some("flink-upgrades") => flink_upgrades::run().await,
        Some("gateway-cost") => gateway_cost::run().await,
        Some("gc") => gc::run().await,
        Some("operator") => operator::run().await,
        Some("security") => security::run().await,
        Some(security::loopback::MAIN_CLASS) => security::loopback::jvm().await,
        Some("sweep") => sweep::run().await,
        Some("zookeeper") => zookeeper::run().await,
        // All tests at once are not meant.
        _ => println!(
            "name one of: adversity api-load class-archive faults flink-upgrades gateway-cost gc operator security sweep zookeeper"
        ),
    }
}
