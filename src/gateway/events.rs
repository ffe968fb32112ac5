//! The way to the election: its events, and the clock that they are timed by.

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

/// Tells the election of events.
#[derive(Clone, Debug)]
pub struct Events(mpsc::UnboundedSender<Event>);

impl Events {
    /// And where the election takes them from.
    pub fn channel() -> (Self, mpsc::UnboundedReceiver<Event>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), receiver)
    }

    /// The election never ends before what tells it, so there is nobody to tell only while the process ends.
    pub fn tell(&self, event: Event) {
        let _ = self.0.send(event);
    }
}
