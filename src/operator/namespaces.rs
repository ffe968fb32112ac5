//! Watches of one kind in several namespaces, as one: their lists, one after another, are its first list. A namespace
//! whose watch begins anew later replaces what is known of that namespace only.

use std::collections::HashSet;
use std::hash::Hash;
use std::task::Poll;

use futures::stream::BoxStream;
use futures::{StreamExt, future};
use kube_runtime::watcher::{Error, Event};

/// What the watch of a namespace says.
pub type WatchAnswer<T> = Result<Event<T>, Error>;

/// The watches of all namespaces.
pub struct NamespaceWatches<T> {
    watches: Vec<BoxStream<'static, WatchAnswer<T>>>,
    /// The only one that is asked: while it lists, the answers of others would be in memory too.
    only: Option<usize>,
    /// The first list, which is that of all of them.
    is_first: bool,
    /// Who is asked first, so that nobody waits for ever.
    next: usize,
}

impl<T> NamespaceWatches<T> {
    /// Nothing is watched yet: the first watch lists first.
    pub fn new(watches: Vec<BoxStream<'static, WatchAnswer<T>>>) -> Self {
        Self { watches, only: Some(0), is_first: true, next: 0 }
    }

    /// Whether the first list is being read.
    pub fn is_first(&self) -> bool {
        self.is_first
    }

    /// Returns what the next one says, with its number and what that means for all of them; `None`: one has ended.
    pub async fn next(&mut self) -> Option<(usize, WatchAnswer<T>, ListPhase)> {
        let (number, said) = match self.only {
            Some(only) => (only, self.watches.get_mut(only)?.next().await?),
            None => self.any().await?,
        };
        let phase = self.follow(number, &said);
        Some((number, said, phase))
    }

    async fn any(&mut self) -> Option<(usize, WatchAnswer<T>)> {
        let (watches, next) = (&mut self.watches, &mut self.next);
        let count = watches.len();
        future::poll_fn(|context| {
            for offset in 0..count {
                let number = (*next + offset) % count;
                if let Poll::Ready(said) = watches[number].poll_next_unpin(context) {
                    *next = (number + 1) % count;
                    return Poll::Ready(said.map(|said| (number, said)));
                }
            }
            Poll::Pending
        })
        .await
    }

    fn follow(&mut self, number: usize, said: &WatchAnswer<T>) -> ListPhase {
        // Of one namespace each list is that of all.
        if self.watches.len() == 1 && matches!(said, Ok(Event::Init)) {
            self.is_first = true;
        }
        let was_first = self.is_first;
        match said {
            Ok(Event::Init) => self.only = Some(number),
            Ok(Event::InitDone) if self.is_first => {
                self.is_first = number + 1 < self.watches.len();
                self.only = self.is_first.then_some(number + 1);
            }
            // After an error a watch waits, and the others go on.
            Ok(Event::InitDone) | Err(_) if !self.is_first => self.only = None,
            _ => {}
        }
        match (was_first, self.is_first) {
            (false, _) => ListPhase::Later,
            (true, true) => ListPhase::First,
            (true, false) => ListPhase::FirstDone,
        }
    }
}

/// Where in the life of all watches one of them says something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListPhase {
    /// In the first list.
    First,
    /// At the end of the first list.
    FirstDone,
    Later,
}

/// Objects that the latest list of each namespace has shown, to tell which ones are gone.
pub struct Listed<R>(Vec<HashSet<R>>);

impl<R: Eq + Hash> Listed<R> {
    pub fn new(watches: usize) -> Self {
        Self(std::iter::repeat_with(HashSet::new).take(watches).collect())
    }

    /// A list of one begins, or what the last one has shown is not needed any more.
    pub fn begin(&mut self, watch: usize) {
        if let Some(listed) = self.0.get_mut(watch) {
            listed.clear();
        }
    }

    /// With one watch nothing is noted: its list replaces everything.
    pub fn add(&mut self, watch: usize, object: R) {
        if self.0.len() > 1
            && let Some(listed) = self.0.get_mut(watch)
        {
            listed.insert(object);
        }
    }

    /// A list of one has ended: is this object of it gone?
    pub fn lacks(&self, watch: usize, object: &R) -> bool {
        self.0.len() > 1 && self.0.get(watch).is_some_and(|listed| !listed.contains(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watches(of: Vec<Vec<WatchAnswer<&'static str>>>) -> NamespaceWatches<&'static str> {
        NamespaceWatches::new(
            of.into_iter().map(|said| futures::stream::iter(said).chain(futures::stream::pending()).boxed()).collect(),
        )
    }

    async fn said(watches: &mut NamespaceWatches<&'static str>, count: usize) -> Vec<(usize, String, ListPhase)> {
        let mut all = Vec::new();
        for _ in 0..count {
            let (number, said, phase) = watches.next().await.expect("it goes on");
            let said = match said {
                Ok(Event::Init) => "list".to_owned(),
                Ok(Event::InitApply(object)) => format!("listed {object}"),
                Ok(Event::InitDone) => "done".to_owned(),
                Ok(Event::Apply(object)) => object.to_owned(),
                Ok(Event::Delete(object)) => format!("no {object}"),
                Err(_) => "error".to_owned(),
            };
            all.push((number, said, phase));
        }
        all
    }

    fn step(number: usize, said: &str, phase: ListPhase) -> (usize, String, ListPhase) {
        (number, said.to_owned(), phase)
    }

    #[tokio::test]
    async fn the_first_lists_of_all_namespaces_are_one_list_and_later_ones_are_of_one_namespace() {
        let list = |object| vec![Ok(Event::Init), Ok(Event::InitApply(object)), Ok(Event::InitDone)];
        let mut first = list("a");
        // It changes while the other one is listed.
        first.push(Ok(Event::Apply("a2")));
        let mut second = vec![Ok(Event::Init), Err(Error::NoResourceVersion)];
        second.extend(list("b"));
        second.extend(list("b2"));
        second.push(Ok(Event::Delete("b2")));
        let mut watches = watches(vec![first, second]);
        let expected = [
            step(0, "list", ListPhase::First),
            step(0, "listed a", ListPhase::First),
            step(0, "done", ListPhase::First),
            step(1, "list", ListPhase::First),
            step(1, "error", ListPhase::First),
            step(1, "list", ListPhase::First),
            step(1, "listed b", ListPhase::First),
            step(1, "done", ListPhase::FirstDone),
            step(0, "a2", ListPhase::Later),
            step(1, "list", ListPhase::Later),
            step(1, "listed b2", ListPhase::Later),
            step(1, "done", ListPhase::Later),
            step(1, "no b2", ListPhase::Later),
        ];
        assert_eq!(said(&mut watches, expected.len()).await, expected);
    }

    #[tokio::test]
    async fn each_list_of_one_namespace_is_the_list_of_all() {
        let list = || [Ok(Event::Init), Ok(Event::InitDone)];
        let mut watches = watches(vec![list().into_iter().chain(list()).collect()]);
        let done = step(0, "done", ListPhase::FirstDone);
        let expected = [step(0, "list", ListPhase::First), done.clone(), step(0, "list", ListPhase::First), done];
        assert_eq!(said(&mut watches, 4).await, expected);
    }

    #[test]
    fn what_a_new_list_lacks_is_gone_in_its_namespace_only() {
        let mut listed = Listed::new(2);
        listed.begin(0);
        listed.add(0, "a");
        listed.add(1, "b");
        assert!(!listed.lacks(0, &"a") && listed.lacks(0, &"a2") && !listed.lacks(1, &"b"));
        listed.begin(1);
        assert!(listed.lacks(1, &"b") && !listed.lacks(0, &"a"));
        assert!(!Listed::new(1).lacks(0, &"a"), "its list replaces everything by itself");
    }
}
