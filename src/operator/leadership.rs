//! The right of an elected operator to write. It ends by itself when the Lease is not renewed in time, and each request
//! is checked when it is sent: also one of a process that stood still after it had decided.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{Method, Request};
use jiff::{SignedDuration, Timestamp};
use kube::client::Body;
use kube::{Client, Config};

use crate::world::api_server;
use crate::world::clock::since_boot;

/// One tenure of this operator, or the right of one that needs no election.
#[derive(Clone, Debug)]
pub struct Leadership(Arc<Mutex<Until>>);

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

impl Leadership {
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

    /// Makes a client that sends writes only in this tenure.
    ///
    /// # Errors
    /// When certificates or credentials of the configuration cannot be read.
    pub fn client(&self, config: Config) -> Result<Client, kube::Error> {
        let tenure = self.clone();
        api_server::checked_client(config, move |request: &Request<Body>| {
            let reads = request.method() == Method::GET;
            if reads || tenure.holds() { Ok(()) } else { Err(NotElected.into()) }
        })
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
}
