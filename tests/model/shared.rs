//! A value that many states have in common: a step of the search copies what it changes and hashes it once.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

/// A value's hash, without the versions of the Lease in it, and these in order.
pub struct Print {
    pub hash: u64,
    pub versions: Vec<u32>,
}

struct Node<T> {
    /// The print of the value as seen from somewhere, and from where.
    print: Mutex<Option<(u64, Arc<Print>)>>,
    value: T,
}

impl<T: Clone> Clone for Node<T> {
    fn clone(&self) -> Self {
        Self { print: Mutex::new(None), value: self.value.clone() }
    }
}

pub struct Shared<T>(Arc<Node<T>>);

impl<T: Clone> Shared<T> {
    pub fn new(value: T) -> Self {
        Self(Arc::new(Node { print: Mutex::new(None), value }))
    }

    /// Snapshots the value if other states have it too.
    pub fn change<R>(&mut self, change: impl FnOnce(&mut T) -> R) -> R {
        let node = Arc::make_mut(&mut self.0);
        node.print = Mutex::new(None);
        change(&mut node.value)
    }

    /// The print of the value as seen `from` somewhere.
    pub fn print(&self, from: impl Hash, print: impl FnOnce(&T) -> Print) -> Arc<Print> {
        let mut hasher = DefaultHasher::new();
        from.hash(&mut hasher);
        let from = hasher.finish();
        let mut known = self.0.print.lock().unwrap_or_else(PoisonError::into_inner);
        match &*known {
            Some((seen_from, print)) if *seen_from == from => Arc::clone(print),
            _ => {
                let print = Arc::new(print(&self.0.value));
                *known = Some((from, Arc::clone(&print)));
                print
            }
        }
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.value
    }
}

impl<T: PartialEq> PartialEq for Shared<T> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.value == other.0.value
    }
}

impl<T: Eq> Eq for Shared<T> {}

impl<T: fmt::Debug> fmt::Debug for Shared<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.value.fmt(formatter)
    }
}
