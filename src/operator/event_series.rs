//! Events that are published again and again. One that says the same of the same object as one of the last minutes is
//! counted in that one's series (`events.k8s.io/v1`, KEP-383), as client-go's recorder does it. Its key has no message,
//! so it would hide what the second of two different events says; here the message is part of it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};

/// A series ends when nothing was added for this long, as in client-go (`finishTime`).
const IDLE: SignedDuration = SignedDuration::from_mins(6);
/// Events that are remembered. Of more, those that were published longest ago are forgotten, and begin anew.
const MOST: usize = 1000;

/// What makes two events the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EventKey {
    /// UID of the object.
    pub regarding: String,
    pub reason: String,
    pub note: String,
}

/// How an event is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Publication {
    /// As a new event.
    New { name: String },
    /// By the series of this event, which has been seen so many times.
    Again { name: String, count: i32 },
}

impl Publication {
    /// Name of the event.
    pub fn into_name(self) -> String {
        match self {
            Self::New { name } | Self::Again { name, .. } => name,
        }
    }
}

/// The events of the last minutes.
#[derive(Default)]
pub struct EventSeries(Mutex<Published>);

#[derive(Default)]
struct Published {
    events: HashMap<EventKey, Sent>,
    /// Nanoseconds in the name of the last new event.
    last: i128,
}

struct Sent {
    name: String,
    count: i32,
    at: Timestamp,
}

impl EventSeries {
    /// Decides how an event is published now, and counts it. `object`: name of the object.
    pub fn publication(&self, object: &str, key: &EventKey, now: Timestamp) -> Publication {
        let mut published = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        published.events.retain(|_, sent| now.duration_since(sent.at) < IDLE);
        if let Some(sent) = published.events.get_mut(key) {
            sent.count = sent.count.saturating_add(1);
            sent.at = now;
            return Publication::Again { name: sent.name.clone(), count: sent.count };
        }
        published.make_room();
        let name = published.new_name(object, now);
        published.events.insert(key.clone(), Sent { name: name.clone(), count: 1, at: now });
        Publication::New { name }
    }

    /// Forgets an event that could not be published, or that is gone.
    pub fn forget(&self, key: &EventKey) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).events.remove(key);
    }
}

impl Published {
    fn make_room(&mut self) {
        if self.events.len() >= MOST
            && let Some(oldest) = self.events.iter().min_by_key(|(_, sent)| sent.at).map(|(key, _)| key.clone())
        {
            self.events.remove(&oldest);
        }
    }

    /// `kubectl describe` sorts events by a time that events of this version do not have, so they stay in the order of
    /// their names: each is higher than those before it.
    fn new_name(&mut self, object: &str, now: Timestamp) -> String {
        self.last = now.as_nanosecond().max(self.last + 1);
        format!("{object}.{:016x}", self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(note: &str) -> EventKey {
        EventKey { regarding: "uid".to_owned(), reason: "NoStandby".to_owned(), note: note.to_owned() }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap_or_default()
    }

    fn name(publication: &Publication) -> String {
        publication.clone().into_name()
    }

    #[test]
    fn what_is_said_again_is_counted_and_what_is_said_otherwise_is_an_event_of_its_own() {
        let series = EventSeries::default();
        let first = series.publication("demo", &key("a"), at(0));
        assert!(matches!(first, Publication::New { .. }), "{first:?}");
        let again = |count| Publication::Again { name: name(&first), count };
        assert_eq!(series.publication("demo", &key("a"), at(300)), again(2));
        let other = series.publication("demo", &key("b"), at(301));
        assert!(matches!(&other, Publication::New { name: one } if *one != name(&first)), "{other:?}");
        assert_eq!(series.publication("demo", &key("a"), at(600)), again(3), "the six minutes begin with the last");
        assert!(matches!(series.publication("demo", &key("a"), at(1000)), Publication::New { .. }));
        series.forget(&key("a"));
        assert!(matches!(series.publication("demo", &key("a"), at(1001)), Publication::New { .. }));
    }

    #[test]
    fn names_are_in_the_order_in_which_events_were_published_also_when_the_clock_goes_back() {
        let series = EventSeries::default();
        let names: Vec<String> = [5, 5, 3, 9]
            .into_iter()
            .enumerate()
            .map(|(index, second)| name(&series.publication("demo", &key(&index.to_string()), at(second))))
            .collect();
        assert!(names.is_sorted_by(|one, other| one < other), "{names:?}");
        assert!(names.iter().all(|name| name.len() == "demo.".len() + 16), "{names:?}");
    }

    #[test]
    fn no_more_are_remembered_than_there_is_room_for() {
        let series = EventSeries::default();
        for number in 0..MOST + 5 {
            series.publication("demo", &key(&number.to_string()), at(0));
        }
        assert_eq!(series.0.lock().unwrap_or_else(PoisonError::into_inner).events.len(), MOST);
    }
}
