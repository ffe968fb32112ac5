//! Who may use the machine. Most of a test is waiting, so two of them run beside each other; a test whose times are a
//! result, or that takes away what others stand on, runs alone.

use std::cell::Cell;
use std::sync::{Arc, LazyLock};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// So many tests at a time: with two cores, two.
const SHARES: u32 = 2;

static MACHINE: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(SHARES as usize)));

thread_local! {
    /// This test, which has a thread of its own, wants the machine for itself.
    static ALONE: Cell<bool> = const { Cell::new(false) };
}

/// The machine, or a part of it, for as long as it is kept.
#[must_use]
pub struct Share(#[allow(dead_code)] OwnedSemaphorePermit);

/// The next [`share`] of this test is the whole machine.
pub fn want_all() {
    ALONE.set(true);
}

/// Waits for a share, first come first served. A test takes one only, before it starts anything.
pub async fn share() -> Share {
    let shares = if ALONE.take() { SHARES } else { 1 };
    Share(Arc::clone(&MACHINE).acquire_many_owned(shares).await.expect("a semaphore that is never closed"))
}
