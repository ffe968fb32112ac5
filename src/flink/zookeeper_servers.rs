//! Reads Flink's `high-availability.zookeeper.quorum`: `host:port`, separated by commas. An address of IPv6 is in
//! brackets, as ZooKeeper's client reads it (`ConnectStringParser` with `NetUtils.getIPV6HostAndPort`, in ZooKeeper 3.7
//! of Flink 1.20 to 2.3).

/// Port of a server that names none.
const PORT: &str = "2181";

/// Returns the servers, each with its port.
pub fn servers(quorum: &str) -> impl Iterator<Item = String> {
    let servers = quorum.split(',').map(str::trim).filter(|server| !server.is_empty());
    servers.map(|server| if has_port(server) { server.to_owned() } else { format!("{server}:{PORT}") })
}

/// Returns the name or the address of a server with a port.
pub fn host(server: &str) -> &str {
    server.rsplit_once(':').map_or(server, |(host, _)| host).trim_matches(['[', ']'])
}

fn has_port(server: &str) -> bool {
    server.rsplit_once(':').is_some_and(|(host, _)| !host.starts_with('[') || host.ends_with(']'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_have_a_port_and_addresses_of_ipv6_stay_in_brackets() {
        for (quorum, expected) in [
            ("zk-0.zk:2182, zk-1.zk,", "zk-0.zk:2182 zk-1.zk:2181"),
            ("10.0.0.1,10.0.0.2:1", "10.0.0.1:2181 10.0.0.2:1"),
            ("[fd00::1],[fd00::2]:1", "[fd00::1]:2181 [fd00::2]:1"),
        ] {
            assert_eq!(servers(quorum).collect::<Vec<_>>().join(" "), expected, "{quorum}");
        }
        let hosts = servers("zk,10.0.0.1,[fd00::1],[::1]:1").map(|server| host(&server).to_owned());
        assert_eq!(hosts.collect::<Vec<_>>(), ["zk", "10.0.0.1", "fd00::1", "::1"]);
    }
}
