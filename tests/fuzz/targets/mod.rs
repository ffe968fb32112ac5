//! The targets. Each reads bytes as one kind of others writes them, and checks what must hold whatever they are.

mod collect;
mod configuration;
mod java;
mod lease;
mod ledger;
mod marks;
mod objects;
mod observed;
mod peers;
mod proxy;
mod received;
mod resource;
mod text;
mod znode_requests;
mod zookeeper;

pub struct Target {
    /// Also the name of its corpus.
    pub name: &'static str,
    pub run: fn(&[u8]),
}

const fn target(name: &'static str, run: fn(&[u8])) -> Target {
    Target { name, run }
}

pub const TARGETS: [Target; 15] = [
    target("collect", collect::run),
    target("configuration", configuration::run),
    target("java", java::run),
    target("lease", lease::run),
    target("ledger", ledger::run),
    target("marks", marks::run),
    target("objects", objects::run),
    target("observed", observed::run),
    target("peers", peers::run),
    target("proxy", proxy::run),
    target("received", received::run),
    target("resource", resource::run),
    target("text", text::run),
    target("znode_requests", znode_requests::run),
    target("zookeeper", zookeeper::run),
];
