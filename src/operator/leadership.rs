//! The right of an elected operator to write. It ends by itself when the Lease is not renewed in time, and each request
//! is checked when it is sent: also one of a process that stood still after it had decided.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{Method, Request};
use jiff::{SignedDuration, Timestamp};
use kube::client::Body;
use kube::{Client, Config};

use crate::telemetry::counts::CountsBy;
use crate::world::api_server;
use crate::world::clock::since_boot;

/// One tenure of this operator, or the right of one that needs no election.
#[derive(Clone, Debug)]
pub struct WriteRight(Arc<Mutex<Until>>);

/// Until when writes are sent.
#[derive(Clone, Debug, PartialEq)]
enum Until {
    /// No election is held.
    Always,
    /// Until both of these: the clock that no one sets, and the wall clock. The first stands still while a hypervisor
    /// pauses the machine; the second is set right afterwards.
    Both { boot: Duration, wall: Timestamp },
    /// The tenure is over. Another one has another right.
    Never,
}

impl Until {
    fn holds(&self, boot: Duration, wall: Timestamp) -> bool {
        match self {
            Self::Always => true,
            Self::Both { boot: until, wall: until_wall } => boot < *until && wall < *until_wall,
            Self::Never => false,
        }
    }

    /// Follows the election, which is valid until `until`. Only a new time counts: otherwise a wall clock that was set
    /// forward would be believed again without a renewal.
    fn extend(&mut self, until: Duration, boot: Duration, wall: Timestamp) {
        let known = match self {
            Self::Both { boot: known, .. } => *known == until,
            Self::Always | Self::Never => true,
        };
        if !known {
            let left = SignedDuration::try_from(until.saturating_sub(boot)).unwrap_or(SignedDuration::ZERO);
            *self = Self::Both { boot: until, wall: wall.saturating_add(left).unwrap_or(wall) };
        }
    }
}

impl WriteRight {
    /// The right of an operator without an election.
    pub fn unlimited() -> Self {
        Self(Arc::new(Mutex::new(Until::Always)))
    }

    /// The right of a tenure that begins.
    pub fn begin(until: Duration) -> Self {
        let tenure = Self(Arc::new(Mutex::new(Until::Both { boot: Duration::ZERO, wall: Timestamp::MIN })));
        tenure.extend(until);
        tenure
    }

    /// The Lease is valid until this time since the machine's start.
    pub fn extend(&self, until: Duration) {
        self.until(|now| now.extend(until, since_boot(), Timestamp::now()));
    }

    /// Ends the tenure for good.
    pub fn end(&self) {
        self.until(|now| *now = Until::Never);
    }

    pub fn holds(&self) -> bool {
        self.until(|now| now.holds(since_boot(), Timestamp::now()))
    }

    /// Makes a client that sends writes only in this tenure. `requests`: counts the answers.
    ///
    /// # Errors
    /// When certificates or credentials of the configuration cannot be read.
    pub fn client(&self, config: Config, requests: CountsBy) -> Result<Client, kube::Error> {
        let tenure = self.clone();
        let check = move |request: &Request<Body>| {
            let reads = request.method() == Method::GET;
            if reads || tenure.holds() { Ok(()) } else { Err(NotElected.into()) }
        };
        api_server::checked_client(config, check, move |code| requests.inc_code(code))
    }

    fn until<T>(&self, act: impl FnOnce(&mut Until) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A write was not sent.
#[derive(Debug, thiserror::Error)]
#[error("not sent, because the Lease of this operator is not renewed: another operator may have been elected")]
struct NotElected;

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::Api;
    use kube::api::{Patch, PatchParams};
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn wall(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).expect("a time")
    }

    fn until(boot: u32) -> Until {
        let mut until = Until::Both { boot: Duration::ZERO, wall: wall(0) };
        until.extend(SECOND * boot, SECOND * 90, wall(0));
        until
    }

    #[test]
    fn a_right_ends_by_either_clock() {
        let until = until(100);
        assert!(until.holds(SECOND * 99, wall(9)));
        assert!(!until.holds(SECOND * 100, wall(0)), "the machine was suspended");
        assert!(!until.holds(SECOND * 91, wall(10)), "a hypervisor paused the machine, and its clock was set right");
    }

    #[test]
    fn only_a_renewal_extends_a_right() {
        let mut until = until(100);
        until.extend(SECOND * 100, SECOND * 91, wall(3600));
        assert!(
            !until.holds(SECOND * 92, wall(3601)),
            "the same validity was seen again after a leap of the wall clock"
        );
        until.extend(SECOND * 102, SECOND * 92, wall(3601));
        assert!(until.holds(SECOND * 93, wall(3602)));
    }

    #[test]
    fn a_tenure_that_is_over_does_not_begin_again_and_without_an_election_nothing_ends() {
        let mut over = Until::Never;
        over.extend(SECOND * 200, SECOND * 100, wall(0));
        assert!(!over.holds(SECOND * 100, wall(0)));
        let mut always = Until::Always;
        always.extend(SECOND, SECOND, wall(0));
        assert!(always.holds(SECOND * 1000, wall(1000)));
    }

    /// Answers every request with an empty object.
    async fn server() -> Config {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address")).parse().expect("a URL");
        tokio::spawn(async move {
            while let Ok((mut connection, _)) = listener.accept().await {
                let _ = connection.read(&mut [0; 4096]).await;
                let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n";
                let _ = connection.write_all(format!("{head}connection: close\r\n\r\n{{}}").as_bytes()).await;
            }
        });
        Config::new(url)
    }

    #[tokio::test]
    async fn a_client_sends_writes_only_in_its_tenure_and_reads_always() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (config, requests) = (server().await, CountsBy::of_codes());
        let may_write = async |tenure: &WriteRight| {
            let client = tenure.client(config.clone(), requests.clone()).expect("a client");
            let config_maps: Api<ConfigMap> = Api::namespaced(client, "flink");
            config_maps.get("demo").await.expect("a read needs no right");
            let written = config_maps.patch("demo", &PatchParams::default(), &Patch::Merge(json!({}))).await;
            written.is_ok()
        };
        let tenure = WriteRight::begin(since_boot() + 3600 * SECOND);
        assert!(may_write(&tenure).await);
        tenure.end();
        assert!(!may_write(&tenure).await, "the tenure is over");
        tenure.extend(since_boot() + 7200 * SECOND);
        assert!(!may_write(&tenure).await, "the election goes on, but that is another tenure");
        assert!(!may_write(&WriteRight::begin(since_boot())).await, "it was not renewed in time");
        assert!(may_write(&WriteRight::unlimited()).await);
        assert_eq!(requests.get("200"), 7, "five reads and two writes; what is not sent does not count");
    }
}
