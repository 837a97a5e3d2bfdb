//! Watches: existing objects, then changes.

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::watch;

use super::api::Api;
use super::selector::Selector;
use super::store::Change;

/// A running watch.
pub(crate) struct Watch {
    api: Api,
    changed: watch::Receiver<u64>,
    resource: String,
    namespace: String,
    selector: Selector,
    pending: VecDeque<Event>,
    cursor: u64,
}

/// One event of a watch.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Event {
    /// An object exists, or is now selected.
    Added(Arc<Value>),
    /// A selected object changed.
    Modified(Arc<Value>),
    /// An object was deleted, or is no longer selected.
    Deleted(Arc<Value>),
    /// All changes up to this version have been sent.
    Bookmark(u64),
    /// The history does not reach back to the requested version, and the watch ends. Contains the
    /// requested and the oldest available version.
    Expired(u64, u64),
}

impl Event {
    /// `ADDED` and so on.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Event::Added(_) => "ADDED",
            Event::Modified(_) => "MODIFIED",
            Event::Deleted(_) => "DELETED",
            Event::Bookmark(_) => "BOOKMARK",
            Event::Expired(..) => "ERROR",
        }
    }
}

impl Watch {
    pub(super) fn new(
        api: Api,
        changed: watch::Receiver<u64>,
        resource: String,
        namespace: String,
        selector: Selector,
        present: Vec<Arc<Value>>,
        cursor: u64,
    ) -> Watch {
        let pending = present.into_iter().map(Event::Added).collect();
        Watch { api, changed, resource, namespace, selector, pending, cursor }
    }

    /// Adds the end-of-list bookmark of a streaming list.
    pub(crate) fn push_bookmark(&mut self) {
        self.pending.push_back(Event::Bookmark(self.cursor));
    }

    /// Waits for the next event. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Event {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return event;
            }
            self.changed.mark_unchanged();
            self.read();
            if self.pending.is_empty() && self.changed.changed().await.is_err() {
                // Unreachable: the sender belongs to the API, which this watch keeps alive.
                std::future::pending::<()>().await;
            }
        }
    }

    fn read(&mut self) {
        let store = self.api.locked();
        match store.since(self.cursor) {
            Ok(changes) => {
                for change in changes {
                    let here = change.key.resource == self.resource
                        && (self.namespace.is_empty() || change.key.namespace == self.namespace);
                    if here {
                        self.pending.extend(selected_event(&self.selector, change));
                    }
                }
                self.cursor = store.version();
            }
            Err(oldest) => self.pending.push_back(Event::Expired(self.cursor, oldest)),
        }
    }
}

/// Converts a change to an event of a watch that sees only selected objects.
fn selected_event(selector: &Selector, change: &Change) -> Option<Event> {
    let before = change.old.as_ref().is_some_and(|old| selector.matches(old));
    let after = !change.deleted && selector.matches(&change.new);
    let new = change.new.clone();
    match (before, after) {
        (false, true) => Some(Event::Added(new)),
        (true, true) => Some(Event::Modified(new)),
        (true, false) => Some(Event::Deleted(new)),
        (false, false) => None,
    }
}
