//! Remembers the ledger of this gateway's term, and tells what a later version of it lacks.

use std::sync::{Mutex, PoisonError};

use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::Value;

use crate::lease::term::Term;
use crate::ledger::copy::LedgerCopy;

/// The ledger as this gateway has last seen it in its term.
#[derive(Default)]
pub struct KnownLedger(Mutex<Option<LedgerCopy>>);

/// What is to be put back.
pub enum Injury {
    /// The ledger is gone.
    Gone(Box<ConfigMap>),
    /// It lacks what this merge patch puts back.
    Lacks(Value),
}

impl KnownLedger {
    /// Compares the ledger with the last one in this term, and remembers it when nothing is missing.
    pub fn injury(&self, found: Option<&ConfigMap>, term: &Term) -> Option<Injury> {
        let mut copy = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        copy.take_if(|copy| !copy.is_of(term));
        let Some(found) = found else { return copy.as_ref()?.to_create().map(Box::new).map(Injury::Gone) };
        match &mut *copy {
            None => *copy = LedgerCopy::of(found, term),
            Some(last) => match last.patch(found) {
                Some(patch) => return Some(Injury::Lacks(patch)),
                None => last.follow(found),
            },
        }
        None
    }

    /// Remembers what this gateway has written.
    pub fn follow(&self, written: &ConfigMap, term: &Term) {
        let mut copy = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(copy) = copy.as_mut().filter(|copy| copy.is_of(term)) {
            copy.follow(written);
        }
    }
}
