//! One execution of a target: it must not panic, and what it allocates is bounded by what it reads, not by a length
//! that stands in it.

use std::alloc::System;
use std::sync::OnceLock;

use cap::Cap;

use crate::targets::{TARGETS, Target};

#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, usize::MAX);

/// What any input may cost, in bytes allocated in all, whether they are freed or not.
const BASE: usize = 8 << 20;
/// What each byte of an input may cost besides.
const PER_BYTE: usize = 1000;

static TARGET: OnceLock<&Target> = OnceLock::new();

/// Chooses the target that the environment variable `TARGET` names.
pub fn begin() {
    let name = std::env::var("TARGET").unwrap_or_default();
    let target = TARGETS.iter().find(|target| target.name == name);
    let _ = TARGET.set(target.unwrap_or_else(|| panic!("TARGET={name:?} is none of the targets")));
}

pub fn one(bytes: &[u8]) {
    let Some(target) = TARGET.get() else { return };
    let before = MEMORY.total_allocated();
    (target.run)(bytes);
    let allocated = MEMORY.total_allocated() - before;
    let allowed = BASE + PER_BYTE * bytes.len();
    assert!(allocated <= allowed, "{allocated} bytes were allocated for an input of {}", bytes.len());
}
