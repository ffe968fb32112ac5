//! Sends events to the election, and defines the clock by which they are timed.

use std::time::Instant;

use tokio::sync::mpsc;

use crate::lease::elector::{Event, Time};

/// The local monotonic clock, from the start of this process.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self(Instant::now())
    }

    pub fn now(&self) -> Time {
        Time(self.0.elapsed().as_millis() as u64)
    }
}

/// Sender of the election's events.
#[derive(Clone, Debug)]
pub struct Events(mpsc::UnboundedSender<Event>);

impl Events {
    /// Returns the sender, and the receiver for the election.
    pub fn channel() -> (Self, mpsc::UnboundedReceiver<Event>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), receiver)
    }

    /// Sends an event. The election outlives its senders, so the receiver is gone only while the process ends.
    pub fn tell(&self, event: Event) {
        let _ = self.0.send(event);
    }
}
