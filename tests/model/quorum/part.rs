//! A part of the world that many worlds have in common: it is copied when it changes, and hashed once.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Debug)]
struct Node<T> {
    /// 0 while it is not known.
    hash: AtomicU64,
    value: T,
}

impl<T: Clone> Clone for Node<T> {
    fn clone(&self) -> Self {
        Self { hash: AtomicU64::new(0), value: self.value.clone() }
    }
}

#[derive(Debug)]
pub struct Part<T>(Arc<Node<T>>);

impl<T> Part<T> {
    pub fn new(value: T) -> Self {
        Self(Arc::new(Node { hash: AtomicU64::new(0), value }))
    }
}

impl<T> Clone for Part<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Deref for Part<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.value
    }
}

impl<T: Clone> DerefMut for Part<T> {
    fn deref_mut(&mut self) -> &mut T {
        let node = Arc::make_mut(&mut self.0);
        *node.hash.get_mut() = 0;
        &mut node.value
    }
}

impl<T: PartialEq> PartialEq for Part<T> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.value == other.0.value
    }
}

impl<T: Eq> Eq for Part<T> {}

impl<T: Hash> Hash for Part<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let mut hash = self.0.hash.load(Ordering::Relaxed);
        if hash == 0 {
            let mut hasher = DefaultHasher::new();
            self.0.value.hash(&mut hasher);
            hash = hasher.finish().max(1);
            self.0.hash.store(hash, Ordering::Relaxed);
        }
        state.write_u64(hash);
    }
}
