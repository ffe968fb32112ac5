//! The clock of the operators' election: monotonic, and it goes on while the machine is suspended. `Instant` stands
//! still then, so that a machine that wakes up would believe in a Lease that has expired long ago.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Returns the time since the machine started, with the time for which it was suspended.
pub fn since_boot() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}
